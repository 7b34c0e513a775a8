/** Hooks for requests with the key of this tab. */

import { useCallback, useEffect, useState } from "preact/hooks";
import { asProblem, call, type CallOptions, RequestFailed } from "./api";
import { announce } from "./navigation";
import { apiKey } from "./session";
import { leave } from "./training";
import type { ProblemDocument } from "./types";

export type Send = <T>(method: string, path: string, options?: CallOptions) => Promise<T>;

export interface Requests {
  isBusy: boolean;
  problem: ProblemDocument | null;
  /** Run an action; a failure becomes `problem`, and a rejected key ends the session. */
  run: (action: (send: Send) => Promise<void>) => Promise<void>;
}

export function useRequests(): Requests {
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<ProblemDocument | null>(null);
  const run = useCallback(async (action: (send: Send) => Promise<void>) => {
    setBusy(true);
    setProblem(null);
    try {
      await action((method, path, options) => call(method, path, { ...options, key: apiKey.value }));
    } catch (error) {
      if (error instanceof RequestFailed && error.status === 401 && apiKey.value) {
        leave("The API key is no longer valid.");
      } else {
        setProblem(asProblem(error));
        announce(asProblem(error).title);
      }
    } finally {
      setBusy(false);
    }
  }, []);
  return { isBusy, problem, run };
}

/** Load the data of a page. `reload` loads it again. */
export function useLoaded<T>(path: string): Requests & { value: T | null; reload: () => Promise<void> } {
  const requests = useRequests();
  const [value, setValue] = useState<T | null>(null);
  const { run } = requests;
  const reload = useCallback(() => run(async (send) => setValue(await send<T>("GET", path))), [run, path]);
  useEffect(() => void reload(), [reload]);
  return { ...requests, value, reload };
}
