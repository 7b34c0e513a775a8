/** Numbers, dates and sizes as text. */

const INTEGER = new Intl.NumberFormat("en");
const DATE_TIME = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const DATE = new Intl.DateTimeFormat("en", { dateStyle: "medium" });

export const count = (value: number) => INTEGER.format(value);
export const dateTime = (iso: string) => DATE_TIME.format(new Date(iso));
export const date = (iso: string) => DATE.format(new Date(iso));
export const metric = (value: number | null | undefined) => (value == null ? "–" : value.toFixed(3));
export const plural = (value: number, noun: string) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

export function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.01 ? 2 : share < 0.1 ? 1 : 0)}%`;
}

export function size(bytes: number): string {
  const unit = bytes < 1e3 ? "B" : bytes < 1e6 ? "kB" : bytes < 1e9 ? "MB" : "GB";
  const divisor = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 }[unit];
  return `${(bytes / divisor).toFixed(bytes < 1e3 || bytes / divisor >= 100 ? 0 : 1)} ${unit}`;
}

export function duration(seconds: number): string {
  if (seconds < 90) return plural(Math.max(1, Math.round(seconds)), "second");
  if (seconds < 5400) return plural(Math.round(seconds / 60), "minute");
  return plural(Math.round(seconds / 3600), "hour");
}

/** A range of whole numbers; without an end, it is open. */
export function range(first: number, last: number | null): string {
  if (last === null) return `${count(first)}+`;
  return first === last ? count(first) : `${count(first)}–${count(last)}`;
}

/** The beginning of a version's name, which is enough to tell versions apart. */
export const shortVersion = (version: string) => version.slice(0, 8);
