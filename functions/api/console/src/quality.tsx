/** The quality of a model beside that of recommending what is popular. */

import { metric } from "./format";
import { Table } from "./parts";
import type { Metrics } from "./types";

export const METRICS: Record<string, string> = {
  ndcg_at_20: "NDCG@20",
  recall_at_20: "Recall@20",
  hr_at_10: "Hit rate@10",
  ndcg_at_10: "NDCG@10",
  coverage_at_20: "Coverage@20",
};

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
        {Object.entries(METRICS).map(([name, text]) => (
          <tr>
            <td>{text}</td>
            <td>{metric(quality[name])}</td>
            {popularity && <td>{metric(popularity[name])}</td>}
          </tr>
        ))}
      </Table>
      <p class="muted small">
        Measured on purchases that the model did not see: one of each user was held out, and the model had to find it.
      </p>
    </>
  );
}
