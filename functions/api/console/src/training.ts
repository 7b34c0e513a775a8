/** The file and the job that this tab works on. Both outlive a change of the page; the job also outlives a reload. */

import { signal } from "@preact/signals";
import { asProblem, call, RequestFailed, upload } from "./api";
import { type Beginning, beginningOf, firstValue } from "./csv";
import { completeCurve } from "./metrics";
import { announce } from "./navigation";
import { apiKey, rememberExample, signOut, keepKey } from "./session";
import type { Job, Point, ProblemDocument, Report } from "./types";

export interface ChosenFile {
  file: File;
  beginning: Beginning | null;
}

const STORED_JOB = "recsys.job";
const POLL_MS = 500;
const PATIENT_POLL_MS = 2000;
const IMPATIENT_POLLS = 240; // two minutes
const FINAL = new Set(["succeeded", "failed", "superseded", "held"]);

export const chosen = signal<ChosenFile | null>(null);
export const job = signal<Job | null>(null);
export const curve = signal<Point[]>([]);
export const checked = signal<Report | null>(null);
export const activity = signal<"idle" | "uploading" | "checking">("idle");
export const failure = signal<ProblemDocument | null>(null);

export const isFinal = (value: Pick<Job, "status">) => FINAL.has(value.status);
export const isTraining = () => job.value !== null && !isFinal(job.value);

export async function choose(file: File): Promise<void> {
  checked.value = null;
  failure.value = null;
  if (job.value && isFinal(job.value)) job.value = null;
  chosen.value = { file, beginning: await beginningOf(file) };
  announce(`${file.name} was chosen.`);
}

export function discard(): void {
  task += 1;
  activity.value = "idle";
  chosen.value = null;
  checked.value = null;
  failure.value = null;
  job.value = null;
  sessionStorage.removeItem(STORED_JOB);
}

/** Check the chosen file without training. */
export async function check(options: Record<string, string>): Promise<void> {
  await submit("v1/validate", options, async (jobId) => {
    const final = await poll(jobId, () => undefined);
    checked.value = final.report;
    failure.value = final.problem;
    announce(final.problem ? "The file cannot be used." : "The file was checked.");
  });
}

/** Train on the chosen file, and follow the training to its end. */
export async function train(options: Record<string, string>): Promise<void> {
  job.value = null;
  await submit("v1/train", options, async (jobId) => {
    activity.value = "idle";
    await follow(jobId);
  });
}

/** Follow a training until it is final. */
export async function follow(jobId: string): Promise<void> {
  task += 1;
  sessionStorage.setItem(STORED_JOB, jobId);
  curve.value = [];
  try {
    const final = await poll(jobId, show);
    curve.value = completeCurve(final.metrics) ?? curve.value;
    announce(outcome(final));
    noteExample(final);
  } catch (error) {
    if (error instanceof Replaced) return;
    if (error instanceof RequestFailed && error.status === 404) discard();
    else failure.value = asProblem(error);
  }
}

/** Continue to follow the training of this tab after a reload. */
export function resume(): void {
  const jobId = sessionStorage.getItem(STORED_JOB);
  if (jobId && apiKey.value) void follow(jobId);
}

/** Forget the file and the job when another key is used. */
export function forget(): void {
  discard();
  curve.value = [];
}

/** Forget the key and everything that was done with it. */
export function leave(message: string): void {
  forget();
  signOut(message);
}

async function submit(
  path: "v1/train" | "v1/validate",
  options: Record<string, string>,
  then: (jobId: string) => Promise<void>,
): Promise<void> {
  const file = chosen.value?.file;
  if (!file) return;
  task += 1;
  const own = task;
  failure.value = null;
  activity.value = path === "v1/train" ? "uploading" : "checking";
  try {
    const accepted = await upload(path, file, options, apiKey.value);
    if (own !== task) return;
    if (accepted.api_key) keepKey(accepted.api_key, { show: true });
    await then(accepted.job_id);
  } catch (error) {
    if (error instanceof Replaced) return;
    failure.value = asProblem(error);
    if (error instanceof RequestFailed && error.status === 401 && apiKey.value)
      leave("The API key is no longer valid.");
  } finally {
    if (own === task) activity.value = "idle";
  }
}

/** Thrown to end a task that a later task has replaced. The earlier task must not change the page any more. */
class Replaced extends Error {}

/** Number of the task, such as a check or a training, whose outcome is shown. */
let task = 0;

/** Poll a job until its status is final. If the service is interrupted briefly, polling continues. */
async function poll(jobId: string, onChange: (job: Job) => void): Promise<Job> {
  const own = task;
  const stopIfReplaced = () => {
    if (own !== task) throw new Replaced();
  };
  for (let attempt = 0; ; attempt += 1) {
    stopIfReplaced();
    let waitMs = attempt < IMPATIENT_POLLS ? POLL_MS : PATIENT_POLL_MS;
    try {
      const latest = await call<Job>("GET", `v1/jobs/${jobId}`, { key: apiKey.value });
      stopIfReplaced();
      onChange(latest);
      if (isFinal(latest)) return latest;
    } catch (error) {
      stopIfReplaced();
      const isBrief =
        error instanceof RequestFailed && (error.status === 0 || error.status === 429 || error.status > 499);
      if (!isBrief) throw error;
      waitMs = (error.retryAfterS ?? 5) * 1000;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

function show(latest: Job): void {
  const previous = job.value?.progress;
  const { progress } = latest;
  if (progress && progress.phase !== previous?.phase) announce(phaseText(progress.phase));
  if (progress?.phase === "fitting" && progress.epoch && progress.loss !== null) {
    const points = curve.value.filter((point) => point.epoch < (progress.epoch ?? 0));
    curve.value = [...points, { epoch: progress.epoch, loss: progress.loss, ndcg: progress.validation_ndcg }];
  }
  job.value = latest;
}

/** Remember ids of the file's first rows, so that its recommendations can be tried without looking any up. */
function noteExample(final: Job): void {
  const beginning = chosen.value?.beginning;
  if (!beginning || !final.report) return;
  const { user, item } = final.report.mapping;
  const userId = firstValue(beginning, user);
  const itemId = firstValue(beginning, item);
  rememberExample({ ...(userId && { userId }), ...(itemId && { itemId }) });
}

export const PHASES: Record<string, string> = {
  reading: "Reading the file",
  choosing: "Choosing the settings",
  fitting: "Training",
  evaluating: "Measuring the quality",
  refitting: "Training on all data",
  publishing: "Publishing",
};

export const phaseText = (phase: string) => PHASES[phase] ?? phase;

function outcome(final: Job): string {
  const texts: Record<string, string> = {
    succeeded: "The training is complete.",
    held: "The training is complete, and the new version is held.",
    superseded: "Newer data replaced this training.",
  };
  return texts[final.status] ?? "The training failed.";
}
