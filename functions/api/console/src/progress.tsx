/** The progress of a training: its steps and the learning curve. */

import { LearningCurve } from "./curve";
import { duration } from "./format";
import { Card } from "./parts";
import { curve, PHASES } from "./training";
import type { Job } from "./types";

export function Progress({ job }: { job: Job }) {
  const phases = Object.keys(PHASES);
  const position = job.progress ? phases.indexOf(job.progress.phase) : -1;
  return (
    <Card title="Training">
      <p>{statusText(job)}</p>
      <progress
        aria-label="Progress of the training"
        {...(position < 0 ? {} : { max: phases.length, value: position + shareOfPhase(job) })}
      />
      <ol class="steps">
        {phases.map((phase, index) => (
          <li
            class={index < position ? "done" : index === position ? "now" : ""}
            {...(index === position ? { "aria-current": "step" as const } : {})}
          >
            {PHASES[phase]}
          </li>
        ))}
      </ol>
      <LearningCurve points={curve.value} />
      <p class="muted small">
        You can leave this page: the training continues, and the current version keeps responding.
      </p>
    </Card>
  );
}

function statusText(job: Job): string {
  if (job.status === "queued" || !job.progress) {
    const position = job.queue_position && job.queue_position > 1 ? `, position ${job.queue_position}` : "";
    const wait = job.estimated_wait_s ? `, starts in about ${duration(job.estimated_wait_s)}` : "";
    return `Waiting in the queue${position}${wait} …`;
  }
  const { phase, epoch, epochs } = job.progress;
  const text = PHASES[phase] ?? phase;
  return epoch ? `${text}, epoch ${epoch}${epochs ? ` of at most ${epochs}` : ""} …` : `${text} …`;
}

function shareOfPhase(job: Job): number {
  const { epoch, epochs } = job.progress ?? {};
  return epoch && epochs ? Math.min(1, epoch / epochs) : 0;
}
