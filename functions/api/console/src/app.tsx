/** The frame around every page: navigation, messages, and the handling of changed addresses. */

import { effect } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { asProblem } from "./api";
import { announcement, go, page, pageOfAddress, PAGES, type PageName, takeToken } from "./navigation";
import { DataPage } from "./pages/data";
import { KeysPage } from "./pages/keys";
import { SignInPage } from "./pages/sign_in";
import { TryPage } from "./pages/try_it";
import { VersionsPage } from "./pages/versions";
import { Secret } from "./parts";
import { apiKey, claim, issuedKey, signInByLink } from "./session";
import { follow, forget, isTraining, leave, resume } from "./training";
import type { ProblemDocument } from "./types";

const TITLES: Record<PageName, string> = { ...PAGES, "sign-in": "Sign in" };

export function App() {
  const [linkProblem, setLinkProblem] = useState<ProblemDocument | null>(null);
  useEffect(() => start(setLinkProblem), []);
  const shown = apiKey.value || page.value === "data" ? page.value : "sign-in";
  useEffect(() => {
    document.title = `${TITLES[shown]} – recsys console`;
  }, [shown]);
  return (
    <>
      <a class="skip" href="#content" onClick={focusContent}>
        Skip to the content
      </a>
      <Header shown={shown} />
      <main id="content" tabIndex={-1}>
        {issuedKey.value && (
          <Secret title="Your new API key" secret={issuedKey.value} onDone={() => (issuedKey.value = null)} />
        )}
        <Page name={shown} linkProblem={linkProblem} />
      </main>
      <div class="visually-hidden" aria-live="polite" role="status">
        {announcement.value}
      </div>
    </>
  );
}

function Page({ name, linkProblem }: { name: PageName; linkProblem: ProblemDocument | null }) {
  switch (name) {
    case "data":
      return <DataPage />;
    case "versions":
      return <VersionsPage />;
    case "try":
      return <TryPage />;
    case "keys":
      return <KeysPage />;
    default:
      return <SignInPage problem={linkProblem} />;
  }
}

function Header({ shown }: { shown: PageName }) {
  return (
    <header>
      <div class="bar">
        <a class="brand" href={apiKey.value ? "#/try" : "#/sign-in"}>
          <Logo /> recsys
        </a>
        {apiKey.value && (
          <nav aria-label="Pages">
            {Object.entries(PAGES).map(([name, title]) => (
              <a href={`#/${name}`} {...(name === shown ? { "aria-current": "page" as const } : {})}>
                {title}
                {name === "data" && isTraining() && <span class="pulse" title="Training" />}
              </a>
            ))}
          </nav>
        )}
        {apiKey.value && (
          <button type="button" class="quiet" onClick={() => leave("You are signed out.")}>
            Sign out
          </button>
        )}
      </div>
    </header>
  );
}

function Logo() {
  return (
    <svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
      <rect width="32" height="32" rx="8" class="logo-back" />
      <path d="M8 22 L14 12 L19 18 L24 9" class="logo-line" />
      <circle cx="24" cy="9" r="3" class="logo-dot" />
    </svg>
  );
}

function focusContent(event: Event): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

/** Use the token of the address, continue a training, and follow changes of the address. */
function start(onProblem: (problem: ProblemDocument) => void): () => void {
  const onHashChange = () => {
    if (!redeemToken(onProblem)) page.value = pageOfAddress();
  };
  addEventListener("hashchange", onHashChange);
  if (!redeemToken(onProblem)) {
    resume();
    if (apiKey.value && page.value === "sign-in") go("try");
  }
  const stop = effect(() => {
    onbeforeunload = issuedKey.value ? (event) => event.preventDefault() : null;
  });
  return () => {
    removeEventListener("hashchange", onHashChange);
    stop();
  };
}

function redeemToken(onProblem: (problem: ProblemDocument) => void): boolean {
  const found = takeToken();
  if (!found) return false;
  forget();
  const signedIn = found.kind === "claim" ? claim(found.token) : openLink(found.token);
  signedIn.catch((error: unknown) => onProblem(asProblem(error)));
  return true;
}

async function openLink(token: string): Promise<void> {
  const { jobId, isTrained } = await signInByLink(token);
  if (!isTrained) void follow(jobId);
}
