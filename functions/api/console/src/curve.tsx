/** The learning curve of a training: loss and NDCG@20 by epoch. */

import type uPlot from "uplot";
import { useMemo } from "preact/hooks";
import { metric } from "./format";
import { Table } from "./parts";
import { axis, bottomAxis, type Colours, Legend, lineSeries, Plot, type PlotOptions } from "./plot";
import type { Point } from "./types";

export function LearningCurve({ points }: { points: Point[] }) {
  const last = points.at(-1);
  const data = useMemo<uPlot.AlignedData>(
    () => [points.map((p) => p.epoch), points.map((p) => p.loss), points.map((p) => p.ndcg)],
    [points],
  );
  return (
    <Plot
      label={
        last
          ? `Learning curve. Epoch ${last.epoch}: loss ${metric(last.loss)}, NDCG@20 ${metric(last.ndcg)}.`
          : "Learning curve, which begins after the first epoch."
      }
      caption={<Legend names={["Loss", "NDCG@20 on validation data"]} />}
      data={data}
      options={options}
    >
      <Table label="Learning curve" head={["Epoch", "Loss", "NDCG@20"]}>
        {points.map((point) => (
          <tr>
            <td>{point.epoch}</td>
            <td>{metric(point.loss)}</td>
            <td>{metric(point.ndcg)}</td>
          </tr>
        ))}
      </Table>
    </Plot>
  );
}

function options(colours: Colours): PlotOptions {
  return {
    scales: {
      x: { time: false, range: (_, _min, max) => [1, Math.max(max ?? 2, 2)] },
      loss: { auto: true },
      ndcg: { auto: true },
    },
    axes: [
      { ...bottomAxis(colours, "Epoch"), incrs: [1, 2, 5, 10, 20, 50] },
      { ...axis(colours), scale: "loss", size: 56 },
      { ...axis(colours), scale: "ndcg", side: 1, size: 56, grid: { show: false } },
    ],
    series: [
      { label: "Epoch" },
      lineSeries("Loss", "loss", colours.series[0]),
      lineSeries("NDCG@20", "ndcg", colours.series[1]),
    ],
  };
}
