/** A uPlot chart that adapts to its size and to the colour scheme. A table shows the same numbers as text. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

const HEIGHT = 240;
const MAX_DECIMALS = 6;
const FONT = "12px system-ui, sans-serif";

/** Colours of the style sheet, which differ between light and dark. */
export interface Colours {
  text: string;
  muted: string;
  line: string;
  series: [string, string];
}

export type PlotOptions = Omit<uPlot.Options, "width" | "height">;

interface Props {
  /** Description of the plot for screen readers. */
  label: string;
  caption: ComponentChildren;
  data: uPlot.AlignedData;
  options: (colours: Colours) => PlotOptions;
  height?: number;
  /** The same numbers as a table. */
  children?: ComponentChildren;
  /** Called with each plot that is drawn. */
  onDraw?: (plot: uPlot) => void;
}

export function Plot({ label, caption, data, options, height = HEIGHT, children, onDraw }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    const element = frame.current;
    if (!element) return undefined;
    const draw = () => {
      plot.current?.destroy();
      const size = { width: element.clientWidth, height };
      const drawn = new uPlot(
        { legend: { show: false }, cursor: { show: false }, ...options(coloursOf(element)), ...size },
        latest.current,
        element,
      );
      plot.current = drawn;
      onDraw?.(drawn);
    };
    draw();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
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
  useEffect(() => plot.current?.setData(data), [data]);
  return (
    <figure>
      <figcaption>{caption}</figcaption>
      <div ref={frame} class="plot" role="img" aria-label={label} />
      {children && (
        <details>
          <summary>Show as a table</summary>
          {children}
        </details>
      )}
    </figure>
  );
}

function coloursOf(element: HTMLElement): Colours {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  return {
    text: colour("--text"),
    muted: colour("--muted"),
    line: colour("--line"),
    series: [colour("--series-1"), colour("--series-2")],
  };
}

/** The look of an axis. */
export function axis(colours: Colours): uPlot.Axis {
  return {
    stroke: colours.muted,
    font: FONT,
    labelFont: FONT,
    labelSize: 18,
    size: 52,
    grid: { stroke: colours.line, width: 1 },
    ticks: { show: false },
    values: (_, splits, _axis, _space, increment) => splits.map((value) => decimals(value, increment)),
  };
}

/** A number on an axis, with as many decimals as the distance to the next one needs. */
function decimals(value: number | null, increment: number): string {
  let digits = 0;
  while (digits < MAX_DECIMALS && !isWhole(increment * 10 ** digits)) digits += 1;
  return value === null ? "" : value.toFixed(digits);
}

const isWhole = (value: number) => Math.abs(value - Math.round(value)) < 1e-6;

/** An axis below the plot. */
export function bottomAxis(colours: Colours, label: string): uPlot.Axis {
  return { ...axis(colours), label, size: 28 };
}

/** A line with a point for each value. */
export function lineSeries(label: string, scale: string, stroke: string): uPlot.Series {
  return { label, scale, stroke, width: 2, points: { show: true, size: 7, fill: stroke } };
}

/** Two bars side by side for each group. */
export function BarPlot({ groups, axisLabel, values, ...rest }: BarProps) {
  const positions = groups.map((_, index) => index);
  const bars = (colours: Colours, index: 0 | 1): uPlot.Series => ({
    label: String(index),
    stroke: colours.series[index],
    fill: colours.series[index],
    width: 0,
    paths: uPlot.paths.bars!({ size: [0.34, 48], align: index === 0 ? -1 : 1 }),
    points: { show: false },
  });
  return (
    <Plot
      {...rest}
      data={[positions, ...values]}
      options={(colours) => ({
        scales: {
          x: { time: false, range: () => [-0.6, groups.length - 0.4] },
          y: { range: (_, _min, max) => [0, (max || 1) * 1.05] },
        },
        axes: [
          {
            ...bottomAxis(colours, axisLabel),
            ...(isCrowded(groups) ? { rotate: -45, size: 56 } : {}),
            grid: { show: false },
            splits: () => positions,
            values: (_, splits) => splits.map((position) => groups[position] ?? ""),
          },
          axis(colours),
        ],
        series: [{}, bars(colours, 0), bars(colours, 1)],
      })}
    />
  );
}

/** Whether the names of the groups would overlap on a phone. */
const isCrowded = (groups: string[]) => innerWidth < 640 && groups.join("").length > 20;

interface BarProps extends Omit<Props, "data" | "options"> {
  groups: string[];
  axisLabel: string;
  values: [number[], number[]];
}

/** Names of two series, each with its colour. */
export function Legend({ names: [first, second] }: { names: [string, string] }) {
  return (
    <>
      <span class="series">
        <span class="swatch first" /> {first}
      </span>{" "}
      <span class="series">
        <span class="swatch second" /> {second}
      </span>
    </>
  );
}
