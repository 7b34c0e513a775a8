/** The data report: the interpretation and the contents of a file. */

import { count, date, percent, plural } from "./format";
import { Findings, Table } from "./parts";
import type { Report } from "./types";

const ROLES: Record<string, string> = { user: "User", item: "Item", time: "Time", score: "Score" };
const DELIMITERS: Record<string, string> = { ",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars" };
const SHOWN_ERRORS = 20;
const RULES: Record<string, string> = {
  guest: "without a user (guest checkouts)",
  "not-positive-score": "with a score of 0 or less",
  "below-min-score": "below the minimum score",
  "excluded-item": "with an excluded item",
};

export function ReportView({ report }: { report: Report }) {
  return (
    <>
      <dl class="figures">
        <Figure label="Users" value={count(report.users)} />
        <Figure label="Items" value={count(report.items)} />
        <Figure label="Interactions" value={count(report.interactions)} />
        {report.density !== null && <Figure label="Density" value={percent(report.density)} />}
      </dl>
      <Table label="Columns" head={["Column of the file", "Used as"]}>
        {Object.entries(report.mapping).map(([role, column]) => (
          <tr>
            <td>
              <code>{column}</code>
            </td>
            <td>{ROLES[role] ?? role}</td>
          </tr>
        ))}
      </Table>
      <p class="muted small">{sentence(report)}</p>
      <Findings title="Look at this" kind="warn" findings={report.warnings} />
      {report.errors.length > 0 && <BadLines errors={report.errors} />}
      <Findings title="This would improve the model" kind="info" findings={report.advice ?? report.hints ?? []} />
    </>
  );
}

function BadLines({ errors }: { errors: Report["errors"] }) {
  return (
    <details class="options">
      <summary>The first bad lines</summary>
      <Table label="Bad lines" head={["Line", "Problem"]}>
        {errors.slice(0, SHOWN_ERRORS).map((error) => (
          <tr>
            <td>{error.line}</td>
            <td>{error.detail}</td>
          </tr>
        ))}
      </Table>
    </details>
  );
}

function Figure({ label, value }: { label: string; value: string }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
    </div>
  );
}

/** Return the remaining facts as sentences. */
function sentence(report: Report): string {
  const { charset, delimiter, type } = report.format;
  const facts = [`${count(report.rows_used)} of ${plural(report.lines, "line")} were used`];
  for (const [rule, skipped] of Object.entries(report.skipped)) {
    facts.push(`${count(skipped.count)} ${RULES[rule] ?? rule} were skipped`);
  }
  if (report.bad_lines) facts.push(`${plural(report.bad_lines, "bad line")} ignored`);
  if (report.duplicates) facts.push(`${plural(report.duplicates, "repeated pair")} merged`);
  if (report.first_time && report.last_time) facts.push(`from ${date(report.first_time)} to ${date(report.last_time)}`);
  const separator = typeof delimiter === "string" && `separated by ${DELIMITERS[delimiter] ?? delimiter}`;
  const format = [String(type).toUpperCase(), String(charset ?? "").toUpperCase(), separator].filter(Boolean);
  const source = report.mapping_source === "names" ? "" : ` Columns recognised by: ${report.mapping_source}.`;
  return `${facts.join("; ")}. Format: ${format.join(", ")}.${source}`;
}
