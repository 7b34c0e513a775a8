/** The outcome of a training: the quality beside that of popularity, or the reasons for holding the version. */

import { LearningCurve } from "./curve";
import { announce, go } from "./navigation";
import { Card, ProblemBox, Table } from "./parts";
import { METRICS, Quality } from "./quality";
import { QualityPlots } from "./quality_plots";
import { useRequests } from "./request";
import { curve, discard, job as currentJob } from "./training";
import type { Job } from "./types";

/** Names of the figures of a comparison. */
const NAMES: Record<string, string> = {
  users: "Users",
  items: "Items",
  users_kept: "Users of the current version",
  items_kept: "Items of the current version",
  lift_over_popularity: "NDCG@20 divided by that of popularity",
  lift_interval_95: "Its 95% interval",
  compared_users: "Users who were ranked by both versions",
  compared_ndcg_at_20: "NDCG@20 for these users",
  version: "Version",
};

export function Outcome({ job }: { job: Job }) {
  return (
    <>
      {job.status === "held" && <Held job={job} />}
      {job.status === "superseded" && (
        <div class="notice info">
          <strong>Newer data replaced this training</strong>
          <p>A version that is based on newer data is current, so this one was not published.</p>
          <button type="button" class="secondary" onClick={discard}>
            Choose another file
          </button>
        </div>
      )}
      {job.status === "succeeded" && (
        <Card title="Your model is ready" kind="good">
          <Quality metrics={job.metrics} />
          <div class="row">
            <button type="button" onClick={() => go("try")}>
              Try recommendations
            </button>
            <button type="button" class="secondary" onClick={discard}>
              Train on another file
            </button>
          </div>
        </Card>
      )}
      {curve.value.length > 0 && (
        <Card title="Learning curve">
          <LearningCurve points={curve.value} />
        </Card>
      )}
      {job.metrics && <QualityPlots metrics={job.metrics} />}
    </>
  );
}

function Held({ job }: { job: Job }) {
  const requests = useRequests();
  const publish = () =>
    requests.run(async (send) => {
      await send("POST", `v1/models/${job.model_version}/activate`);
      currentJob.value = { ...job, status: "succeeded" };
      announce("The version is published.");
    });
  return (
    <Card title="The new version is held" kind="warn">
      <p>
        It differs so much from the current version that it was not published. The current version keeps responding.
      </p>
      <ul>
        {job.held_reasons?.map((reason) => (
          <li>{reason.text}</li>
        ))}
      </ul>
      {job.comparison && <Comparison comparison={job.comparison} />}
      <ProblemBox problem={requests.problem} />
      <div class="row">
        {job.model_version && (
          <button type="button" disabled={requests.isBusy} onClick={() => void publish()}>
            Publish anyway
          </button>
        )}
        <button type="button" class="secondary" onClick={discard}>
          Choose another file
        </button>
      </div>
    </Card>
  );
}

function Comparison({ comparison }: { comparison: NonNullable<Job["comparison"]> }) {
  const rows = Object.entries(comparison.new)
    .flatMap(([name, value]) => flattened(name, value, comparison.current[name]))
    .filter(([, current, next]) => !(isNothing(current) && isNothing(next)));
  return (
    <Table label="Comparison with the current version" head={["", "Current", "New"]}>
      {rows.map(([name, current, next]) => (
        <tr>
          <td>{NAMES[name] ?? METRICS[name] ?? name.replaceAll("_", " ")}</td>
          <td>{current}</td>
          <td>{next}</td>
        </tr>
      ))}
    </Table>
  );
}

/** Return one row per figure, with its name and its values. Figures can be nested, for example below `metrics`. */
function flattened(name: string, next: unknown, current: unknown): [string, string, string][] {
  if (next !== null && typeof next === "object" && !Array.isArray(next)) {
    const currents = (current ?? {}) as Record<string, unknown>;
    return Object.entries(next).flatMap(([inner, value]) => flattened(inner, value, currents[inner]));
  }
  return [[name, shown(current), shown(next)]];
}

const isNothing = (text: string) => text === "0" || text === "–";

function shown(value: unknown): string {
  if (Array.isArray(value)) return value.map(shown).join(" to ");
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 3 });
  return value === null || value === undefined ? "–" : String(value);
}
