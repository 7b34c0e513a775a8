/** Requests to the API that serves this page. */

import type { Accepted, ProblemDocument, UploadForm } from "./types";

/** Address to which all routes are relative. The page is `<prefix>/console`, so the address contains the path prefix. */
const BASE = new URL(".", document.baseURI);

/** Largest file that is sent through the API, in bytes. API Gateway and Lambda do not accept larger requests. */
const DIRECT_BYTES = 4_000_000;

/** Thrown if a request gets an error response or no response. */
export class RequestFailed extends Error {
  constructor(
    readonly status: number,
    readonly problem: ProblemDocument,
    readonly retryAfterS: number | null = null,
  ) {
    super(problem.detail);
  }
}

export interface CallOptions {
  key?: string | null;
  json?: unknown;
  body?: BodyInit;
}

export function address(path: string): URL {
  return new URL(path, BASE);
}

/** Send a request and return the JSON of the response, or null if it has no content. */
export async function call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (options.key) headers["X-API-Key"] = options.key;
  if (options.json !== undefined) headers["Content-Type"] = "application/json";
  const body = options.json === undefined ? (options.body ?? null) : JSON.stringify(options.json);
  const response = await send(address(path), { method, headers, body, cache: "no-cache" });
  if (!response.ok) throw await failure(response);
  return (response.status === 204 ? null : await response.json()) as T;
}

/** Upload a file to `POST /v1/train` or `POST /v1/validate`, or by an upload form if it is large. */
export async function upload(
  path: "v1/train" | "v1/validate",
  file: File,
  options: Record<string, string>,
  key: string | null,
): Promise<Accepted> {
  if (file.size > DIRECT_BYTES) return uploadByForm(path, file, options, key);
  const form = new FormData();
  form.append("file", file);
  return call<Accepted>("POST", `${path}?${new URLSearchParams(options)}`, { key, body: form });
}

async function uploadByForm(
  path: string,
  file: File,
  options: Record<string, string>,
  key: string | null,
): Promise<UploadForm> {
  const { min_score, exclude_items, ...texts } = options;
  const json = {
    ...texts,
    ...(min_score && { min_score: Number(min_score) }),
    ...(exclude_items && { exclude_items: exclude_items.split(",") }),
    ...(path === "v1/validate" && { purpose: "validate" }),
    gzip: /\.gz$/i.test(file.name),
  };
  const offered = await call<UploadForm>("POST", "v1/uploads", { key, json });
  if (file.size > offered.max_bytes) {
    throw new RequestFailed(413, problem("The file is too large", `The limit is ${offered.max_bytes} bytes.`));
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(offered.fields)) form.append(name, value);
  form.append("file", file);
  const response = await send(formAddress(offered.url), { method: "POST", body: form });
  if (!response.ok) throw await failure(response);
  return offered;
}

/** Return the address for an upload form. The host in the form of the local service can differ from the browser's host. */
function formAddress(url: string): URL {
  const given = new URL(url);
  return given.pathname.endsWith("/local/uploads") ? address("local/uploads") : given;
}

async function send(url: URL, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, { ...init, credentials: "omit" });
  } catch {
    throw new RequestFailed(0, problem("The service did not respond", "Check that it is running, and try again."));
  }
}

async function failure(response: Response): Promise<RequestFailed> {
  const retryAfterS = Number(response.headers.get("Retry-After")) || null;
  const fallback = problem(`The service responded with status ${response.status}`, "Try again later.");
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  const document = isProblem ? ((await response.json()) as ProblemDocument) : fallback;
  return new RequestFailed(response.status, document, retryAfterS);
}

function problem(title: string, detail: string): ProblemDocument {
  return { type: "urn:recsys:console", title, detail };
}

export function asProblem(error: unknown): ProblemDocument {
  return error instanceof RequestFailed ? error.problem : problem("An unexpected error occurred", String(error));
}
