/** The API key of this tab. sessionStorage keeps the key until the tab is closed. The key is never part of an address. */

import { signal } from "@preact/signals";
import { call } from "./api";
import { announce, go } from "./navigation";
import type { Issued, KeyInfo } from "./types";

const STORED_KEY = "recsys.key";
const STORED_EXAMPLE = "recsys.example";

/** A user and an item of the uploaded data, for a first request for recommendations. */
export interface Example {
  userId?: string;
  itemId?: string;
}

export const apiKey = signal<string | null>(sessionStorage.getItem(STORED_KEY));
export const example = signal<Example>(JSON.parse(sessionStorage.getItem(STORED_EXAMPLE) ?? "{}"));
/** A newly issued key. The page must show the key, because the service does not store it. */
export const issuedKey = signal<string | null>(null);

export function keepKey(key: string, options: { show: boolean }): void {
  sessionStorage.setItem(STORED_KEY, key);
  apiKey.value = key;
  if (options.show) showKey(key);
}

export function rememberExample(value: Example): void {
  sessionStorage.setItem(STORED_EXAMPLE, JSON.stringify(value));
  example.value = value;
}

export function signOut(message: string): void {
  sessionStorage.clear();
  apiKey.value = null;
  issuedKey.value = null;
  example.value = {};
  go("sign-in");
  announce(message);
}

/** Check a key with the service, use it, and open the page that fits its state. */
export async function signIn(key: string): Promise<KeyInfo> {
  const info = await call<KeyInfo>("GET", "v1/key", { key });
  keepKey(key, { show: false });
  go(info.current_version ? "try" : "data");
  return info;
}

/** Exchange the claim token of an import receipt for its key. */
export async function claim(token: string): Promise<void> {
  const issued = await call<Issued>("POST", "v1/key/claim", { json: { claim_token: token } });
  await signIn(issued.api_key);
  showKey(issued.api_key);
}

function showKey(key: string): void {
  issuedKey.value = key;
  announce("Your new API key is shown at the top of the page.");
}

interface LinkTarget {
  api_key: string;
  job_id: string;
  user_id: string;
}

/** Exchange the token of a link that `recsys serve --sample` printed. Returns the job that trains the sample. */
export async function signInByLink(token: string): Promise<{ jobId: string; isTrained: boolean }> {
  const target = await call<LinkTarget>("POST", "local/sign-in", { json: { token } });
  rememberExample({ userId: target.user_id });
  const info = await signIn(target.api_key);
  return { jobId: target.job_id, isTrained: info.current_version !== null };
}
