/** A map of the items: those that the model found similar are close to each other. */

import { useRef, useState } from "preact/hooks";
import type uPlot from "uplot";
import { count, percent } from "./format";
import { Card, Field, Table } from "./parts";
import { type Colours, Plot, type PlotOptions } from "./plot";

/** Horizontal and vertical position, share of the users, and title. */
export type ItemPoint = [number, number, number, string];

export interface ItemMapData {
  points: ItemPoint[];
  n_items: number;
  examples: { name: string; similar: string[] }[];
}

const HEIGHT = 460;
const NEAR_PX = 16;

export function ItemMap({ items }: { items: ItemMapData }) {
  const [search, setSearch] = useState("");
  const tip = useRef<HTMLDivElement>(null);
  const points = [...items.points].sort((a, b) => a[0] - b[0]);
  const isFound = (name: string) => search !== "" && name.toLowerCase().includes(search.toLowerCase());
  const found = points.filter((point) => isFound(point[3]));
  const data: uPlot.AlignedData = [
    points.map(([x]) => x),
    points.map(([, y, , name]) => (isFound(name) ? null : y)),
    points.map(([, y, , name]) => (isFound(name) ? y : null)),
  ];
  return (
    <Card title="Map of the items">
      <p class="muted small">{mapText(items)} Point at an item to read its title.</p>
      <Field
        label="Find items"
        value={search}
        onValue={setSearch}
        help={search && `${count(found.length)} found${found.length > 0 ? `: ${namesOf(found)}` : ""}`}
      />
      <div class="map">
        <Plot
          label={`Map of ${count(points.length)} items in which similar items are close`}
          caption=""
          height={HEIGHT}
          data={data}
          options={options}
          onDraw={(plot) => tip.current && showNames(plot, points, tip.current)}
        />
        <div ref={tip} class="tip" hidden />
      </div>
      <h3>Recommended with the most popular items</h3>
      <Table label="Similar items" head={["Item", "Similar items"]}>
        {items.examples.map(({ name, similar }) => (
          <tr>
            <td class="wrap">{name}</td>
            <td class="wrap">{similar.join(" · ")}</td>
          </tr>
        ))}
      </Table>
    </Card>
  );
}

function mapText({ points, n_items: nItems }: ItemMapData): string {
  const shown = points.length < nItems ? `The ${count(points.length)} most popular of ${count(nItems)} items.` : "All items.";
  return `${shown} Items that the model found similar are close; the distance between remote items means nothing.`;
}

const SHOWN_NAMES = 5;

function namesOf(points: ItemPoint[]): string {
  const names = points.slice(0, SHOWN_NAMES).map((point) => point[3]);
  return names.join(" · ") + (points.length > SHOWN_NAMES ? " …" : "");
}

/** Show the title of the item below the pointer. The position is set by script, because the policy permits no `style`. */
function showNames(plot: uPlot, points: ItemPoint[], tip: HTMLDivElement): void {
  plot.over.addEventListener("mousemove", ({ offsetX, offsetY }) => {
    const point = nearest(plot, points, offsetX, offsetY);
    tip.hidden = point === undefined;
    if (!point) return;
    tip.textContent = `${point[3]} (${percent(point[2])} of the users)`;
    const isRight = offsetX > plot.over.clientWidth / 2;
    const left = plot.over.offsetLeft + offsetX;
    tip.style.left = isRight ? "auto" : `${left + 12}px`;
    tip.style.right = isRight ? `${plot.root.clientWidth - left + 12}px` : "auto";
    tip.style.top = `${plot.over.offsetTop + offsetY + 12}px`;
  });
  plot.over.addEventListener("mouseleave", () => (tip.hidden = true));
}

function nearest(plot: uPlot, points: ItemPoint[], left: number, top: number): ItemPoint | undefined {
  let best: ItemPoint | undefined;
  let bestDistance = NEAR_PX;
  for (const point of points) {
    const distance = Math.hypot(plot.valToPos(point[0], "x") - left, plot.valToPos(point[1], "y") - top);
    if (distance < bestDistance) [best, bestDistance] = [point, distance];
  }
  return best;
}

function options(colours: Colours): PlotOptions {
  const dots = (colour: string, size: number): uPlot.Series => ({
    scale: "y",
    stroke: colour,
    paths: () => null,
    points: { show: true, size, width: 0, fill: colour, space: 0 },
  });
  const range: uPlot.Range.Function = (_, min, max) => [min - 0.2, max + 0.2];
  return {
    scales: { x: { time: false, range }, y: { range } },
    axes: [{ show: false }, { show: false }],
    series: [{}, dots(`${colours.series[0]}88`, 5), dots(colours.series[1], 11)],
  };
}
