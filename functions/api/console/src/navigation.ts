/** The page that is shown, which is the fragment of the address, and messages for screen readers. */

import { signal } from "@preact/signals";

export const PAGES = { data: "Data", versions: "Versions", try: "Try it", keys: "Keys" } as const;
export type PageName = keyof typeof PAGES | "sign-in";

export const page = signal<PageName>(pageOfAddress());
export const announcement = signal("");

export function pageOfAddress(): PageName {
  const name = location.hash.replace(/^#\/?/, "");
  return name in PAGES ? (name as PageName) : "sign-in";
}

export function go(name: PageName): void {
  if (pageOfAddress() === name && location.hash !== "") page.value = name;
  else location.hash = `#/${name}`;
}

/** Announce a message to users of screen readers. */
export function announce(text: string): void {
  announcement.value = text;
}

/** Return the token of `#sign-in=…` or `#claim=…`, and remove it from the address and the history. */
export function takeToken(): { kind: "sign-in" | "claim"; token: string } | null {
  const match = /^#(sign-in|claim)=([\w.~-]+)$/.exec(location.hash);
  if (!match?.[1] || !match[2]) return null;
  history.replaceState(null, "", location.pathname + location.search);
  return { kind: match[1] as "sign-in" | "claim", token: match[2] };
}
