/** The first rows of a text file. They serve only for suggestions, because the service reads the file by its own rules. */

export interface Beginning {
  header: string[];
  rows: string[][];
}

const READ_BYTES = 64 * 1024;
const DELIMITERS = [",", ";", "\t", "|"];

/** Return the header and the first rows of a file, or null if it is not plain text. */
export async function beginningOf(file: File): Promise<Beginning | null> {
  const bytes = new Uint8Array(await file.slice(0, READ_BYTES).arrayBuffer());
  if (bytes.includes(0)) return null; // Parquet, compressed, or UTF-16
  const text = new TextDecoder().decode(bytes).replace(/^\uFEFF/, "");
  const firstLine = text.split(/\r?\n/, 1)[0] ?? "";
  const occurrences = (delimiter: string) => firstLine.split(delimiter).length;
  const delimiter = DELIMITERS.reduce((best, next) => (occurrences(next) > occurrences(best) ? next : best));
  const rows = parse(text, delimiter).filter((row) => row.some((cell) => cell !== ""));
  if (file.size > READ_BYTES) rows.pop(); // the last row can be incomplete
  const [header, ...rest] = rows;
  return header && header.length > 1 ? { header: header.map((name) => name.trim()), rows: rest } : null;
}

function parse(text: string, delimiter: string): string[][] {
  const rows: string[][] = [];
  const separator = delimiter.replace("|", "\\|");
  const cell = new RegExp(`(?:"((?:[^"]|"")*)"|([^${separator}\\r\\n]*))(${separator}|\\r?\\n|$)`, "y");
  let row: string[] = [];
  for (let match = cell.exec(text); match && cell.lastIndex <= text.length; match = cell.exec(text)) {
    row.push(match[1]?.replaceAll('""', '"') ?? match[2] ?? "");
    if (match[3] !== delimiter) {
      rows.push(row);
      row = [];
    }
    if (match[3] === "") break;
  }
  return rows;
}

/** Return the first non-empty value of a column. */
export function firstValue(beginning: Beginning, column: string | undefined): string | undefined {
  const index = column === undefined ? -1 : beginning.header.indexOf(column);
  return index < 0 ? undefined : beginning.rows.map((row) => row[index]).find((value) => value);
}
