/** The learning curve of a training: loss and NDCG@20 by epoch, as a plot and as a table. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { metric } from "./format";
import { Table } from "./parts";
import type { Point } from "./training";

const HEIGHT = 240;

export function LearningCurve({ points }: { points: Point[] }) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  useEffect(() => {
    const element = frame.current;
    if (!element) return undefined;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element), data(points), element);
    };
    draw();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", draw);
    return () => {
      resized.disconnect();
      theme.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(data(points)), [points]);
  const last = points.at(-1);
  return (
    <figure>
      <figcaption>
        <span class="swatch first" /> Loss <span class="swatch second" /> NDCG@20 on validation data
      </figcaption>
      <div
        ref={frame}
        class="plot"
        role="img"
        aria-label={
          last
            ? `Learning curve. Epoch ${last.epoch}: loss ${metric(last.loss ?? undefined)}, NDCG@20 ${metric(last.ndcg ?? undefined)}.`
            : "Learning curve, which begins after the first epoch."
        }
      />
      <details>
        <summary>Show as a table</summary>
        <Table label="Learning curve" head={["Epoch", "Loss", "NDCG@20"]}>
          {points.map((point) => (
            <tr>
              <td>{point.epoch}</td>
              <td>{metric(point.loss ?? undefined)}</td>
              <td>{metric(point.ndcg ?? undefined)}</td>
            </tr>
          ))}
        </Table>
      </details>
    </figure>
  );
}

function data(points: Point[]): uPlot.AlignedData {
  return [points.map((p) => p.epoch), points.map((p) => p.loss), points.map((p) => p.ndcg)];
}

/** The colours are those of the style sheet, which differ between light and dark. */
function options(element: HTMLElement): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const series = (label: string, scale: string, stroke: string): uPlot.Series => ({
    label,
    scale,
    stroke,
    width: 2,
    points: { show: true, size: 7, fill: stroke },
  });
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: (_, _min, max) => [1, Math.max(max ?? 2, 2)] },
      loss: { auto: true },
      ndcg: { auto: true },
    },
    axes: [
      { ...axis, label: "Epoch", labelFont: "12px system-ui", labelSize: 18, size: 28, incrs: [1, 2, 5, 10, 20, 50] },
      { ...axis, scale: "loss", size: 56 },
      { ...axis, scale: "ndcg", side: 1, size: 56, grid: { show: false } },
    ],
    series: [
      { label: "Epoch" },
      series("Loss", "loss", colour("--series-1")),
      series("NDCG@20", "ndcg", colour("--series-2")),
    ],
  };
}
