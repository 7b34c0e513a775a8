/** Sign in with a key, or start without one. */

import { useState } from "preact/hooks";
import { go } from "../navigation";
import { Card, Field, PageTitle, ProblemBox } from "../parts";
import { useRequests } from "../request";
import { claim, signIn } from "../session";
import type { ProblemDocument } from "../types";

export function SignInPage({ problem }: { problem: ProblemDocument | null }) {
  const [text, setText] = useState("");
  const requests = useRequests();
  const submit = (event: Event) => {
    event.preventDefault();
    const secret = text.trim();
    void requests.run(async () => {
      await (secret.startsWith("ct_") ? claim(secret) : signIn(secret));
    });
  };
  return (
    <>
      <PageTitle intro="Upload a CSV of who bought what, and get recommendations for every customer.">
        Recommendations from your own data
      </PageTitle>
      <div class="columns">
        <Card title="Start with a CSV">
          <p>You do not need an account. The first upload creates an API key for your model.</p>
          <button type="button" onClick={() => go("data")}>
            Choose a file
          </button>
        </Card>
        <Card title="Sign in">
          <form onSubmit={submit}>
            <Field
              label="API key"
              isSecret
              required
              value={text}
              onValue={setText}
              help="It begins with rk_. The claim token of a receipt, which begins with ct_, works as well."
            />
            <ProblemBox problem={requests.problem ?? problem} />
            <div class="row">
              <button type="submit" class="secondary" disabled={requests.isBusy}>
                {requests.isBusy ? "Signing in …" : "Sign in"}
              </button>
            </div>
            <p class="muted small">The key stays in this tab and is forgotten when you close it.</p>
          </form>
        </Card>
      </div>
    </>
  );
}
