/** Reliability of the scores: a score is meant to be the probability of an interaction. */

import { count } from "./format";
import { Card, Table } from "./parts";
import { axis, bottomAxis, type Colours, Legend, lineSeries, Plot, type PlotOptions } from "./plot";
import type { ReliabilityRow } from "./types";

const SMALLEST = 1e-4;

export function ReliabilityCard({ rows }: { rows: ReliabilityRow[] }) {
  const scores = rows.map((row) => Math.max(SMALLEST, row.mean_score));
  // The logarithm of 0 does not exist. A row in which nothing was held out is therefore only in the table.
  const observed = rows.map((row) => (row.observed > 0 ? Math.max(SMALLEST, row.observed) : null));
  return (
    <Card title="Reliability of the scores">
      <p class="muted small">
        Recommended items, grouped by their score. If scores are probabilities, the points are on the line.
      </p>
      <Plot
        label={`Share of held-out items by score. ${rows.map((row) => `Score ${short(row.mean_score)}: ${short(row.observed)}`).join(", ")}`}
        caption={<Legend names={["share that was held out", "scores that are probabilities"]} />}
        data={[
          [SMALLEST, ...scores, 1],
          [null, ...observed, null],
          [SMALLEST, ...scores, 1],
        ]}
        options={options}
      >
        <Table label="Reliability of the scores" head={["Mean score", "Share that was held out", "Recommendations"]}>
          {rows.map((row) => (
            <tr>
              <td>{short(row.mean_score)}</td>
              <td>{short(row.observed)}</td>
              <td>{count(row.pairs)}</td>
            </tr>
          ))}
        </Table>
      </Plot>
    </Card>
  );
}

function options(colours: Colours): PlotOptions {
  const scale = { distr: 3 as const, log: 10 as const, range: () => [SMALLEST, 1] as [number, number] };
  const splits = () => [1e-4, 1e-3, 1e-2, 1e-1, 1];
  const values = (_: unknown, shown: (number | null)[]) => shown.map((value) => (value === null ? "" : String(value)));
  return {
    scales: { x: { time: false, ...scale }, y: scale },
    axes: [
      { ...bottomAxis(colours, "Mean score"), splits, values },
      { ...axis(colours), splits, values, size: 60 },
    ],
    series: [
      {},
      lineSeries("Held out", "y", colours.series[0]),
      { scale: "y", stroke: colours.series[1], width: 1, dash: [6, 4], points: { show: false } },
    ],
  };
}

const short = (value: number) => (value === 0 ? "0" : value.toPrecision(2));
