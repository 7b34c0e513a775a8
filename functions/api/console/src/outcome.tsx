/** The outcome of a training: the quality beside that of popularity, or the reasons for holding the version. */

import { metric } from "./format";
import { LearningCurve } from "./curve";
import { announce, go } from "./navigation";
import { Card, ProblemBox, Table } from "./parts";
import { useRequests } from "./request";
import { curve, discard, job as currentJob } from "./training";
import type { Job, Metrics } from "./types";

const METRICS: Record<string, string> = {
  ndcg_at_20: "NDCG@20",
  recall_at_20: "Recall@20",
  hr_at_10: "Hit rate@10",
  ndcg_at_10: "NDCG@10",
  coverage_at_20: "Coverage@20",
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
    </>
  );
}

export function Quality({ metrics }: { metrics: Metrics | null }) {
  const quality = metrics?.quality;
  if (!quality) return null;
  const popularity = metrics?.popularity_baseline;
  const lift = metrics?.lift_over_popularity;
  const interval = metrics?.lift_interval_95;
  return (
    <>
      {metrics?.verdict && <p>{metrics.verdict}</p>}
      {lift != null && (
        <p class="lift">
          <strong>{lift.toFixed(1)}×</strong> the NDCG@20 of recommending what is popular
          {interval && (
            <span class="muted">
              {" "}
              (95% interval {interval[0].toFixed(1)} to {interval[1].toFixed(1)})
            </span>
          )}
        </p>
      )}
      <Table label="Quality" head={["Metric", "This model", ...(popularity ? ["Popularity"] : [])]}>
        {Object.entries(quality).map(([name, value]) => (
          <tr>
            <td>{METRICS[name] ?? name}</td>
            <td>{metric(value)}</td>
            {popularity && <td>{metric(popularity[name])}</td>}
          </tr>
        ))}
      </Table>
      <p class="muted small">
        Measured on purchases that the model did not see: each user's last one was held out, and the model had to find
        it.
      </p>
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
  const rows = Object.entries(comparison.new).flatMap(([name, value]) =>
    flattened(name, value, comparison.current[name]),
  );
  return (
    <Table label="Comparison with the current version" head={["", "Current", "New"]}>
      {rows.map(([name, current, next]) => (
        <tr>
          <td>{METRICS[name] ?? name.replaceAll("_", " ")}</td>
          <td>{current}</td>
          <td>{next}</td>
        </tr>
      ))}
    </Table>
  );
}

/** The counts and metrics may be grouped, for example below `metrics`. */
function flattened(name: string, next: unknown, current: unknown): [string, string, string][] {
  if (next !== null && typeof next === "object" && !Array.isArray(next)) {
    const currents = (current ?? {}) as Record<string, unknown>;
    return Object.entries(next).flatMap(([inner, value]) => flattened(inner, value, currents[inner]));
  }
  return [[name, shown(current), shown(next)]];
}

function shown(value: unknown): string {
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 3 });
  return value === null || value === undefined ? "–" : String(value);
}
