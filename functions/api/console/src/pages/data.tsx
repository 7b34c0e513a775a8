/** From a file to a published model: choose, check, train, and see the outcome. */

import { useState } from "preact/hooks";
import { capabilities } from "../capabilities";
import { CatalogueCard } from "../catalogue";
import { DropZone } from "../drop_zone";
import { plural, size } from "../format";
import { Card, Field, PageTitle, ProblemBox, Table } from "../parts";
import { Progress } from "../progress";
import { ReportView } from "../report";
import { apiKey } from "../session";
import { activity, check, checked, choose, chosen, discard, failure, isFinal, job, train } from "../training";
import { Outcome } from "../outcome";

const COLUMNS = { user: "User column", item: "Item column", time: "Time column", score: "Score column" } as const;
const SHOWN_ROWS = 4;
const SHOWN_COLUMNS = 8;

export function DataPage() {
  const [options, setOptions] = useState<Record<string, string>>({});
  const latest = job.value;
  const isRunning = latest !== null && !isFinal(latest);
  const isOver = latest !== null && isFinal(latest) && latest.status !== "failed";
  return (
    <>
      <PageTitle intro="One row per purchase, view or rating, with a column for the user and one for the item.">
        Data
      </PageTitle>
      {isRunning && <Progress job={latest} />}
      {isOver && <Outcome job={latest} />}
      {!isRunning && !isOver && <FileCard options={options} setOptions={setOptions} />}
      <ProblemBox problem={failure.value ?? (latest?.status === "failed" ? latest.problem : null)} />
      {!isRunning && checked.value && !latest && (
        <Card title="What the file contains">
          <ReportView report={checked.value} />
        </Card>
      )}
      {latest?.report && (
        <Card title="What was read">
          <ReportView report={latest.report} />
        </Card>
      )}
      {apiKey.value && capabilities.value.catalogue && <CatalogueCard />}
    </>
  );
}

interface OptionsProps {
  options: Record<string, string>;
  setOptions: (options: Record<string, string>) => void;
}

function FileCard({ options, setOptions }: OptionsProps) {
  const current = chosen.value;
  const isUploading = activity.value === "uploading";
  const canCheck = capabilities.value.validate;
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== ""));
  const receive = async (file: File) => {
    await choose(file);
    if (canCheck) await check(given);
  };
  if (!current) {
    return (
      <DropZone accept=".csv,.tsv,.txt,.gz,.zst,.zip,.parquet" onFile={(file) => void receive(file)}>
        <strong>Drop a CSV or Parquet file here</strong>
        <span class="muted">
          or click to choose one. Exports of Shopify, WooCommerce and other shops work as they are.
        </span>
      </DropZone>
    );
  }
  return (
    <Card title={current.file.name}>
      <p class="muted">{size(current.file.size)}</p>
      {current.beginning && <Preview header={current.beginning.header} rows={current.beginning.rows} />}
      <FileOptions options={options} setOptions={setOptions} header={current.beginning?.header ?? []} />
      <div class="row">
        <button type="button" disabled={isUploading} onClick={() => void train(given)}>
          {activity.value === "uploading" ? "Uploading …" : "Train on this file"}
        </button>
        {canCheck && (
          <button
            type="button"
            class="secondary"
            disabled={activity.value !== "idle"}
            onClick={() => void check(given)}
          >
            {activity.value === "checking" ? "Checking …" : "Check again"}
          </button>
        )}
        <button type="button" class="secondary" disabled={isUploading} onClick={discard}>
          Choose another file
        </button>
      </div>
    </Card>
  );
}

function Preview({ header, rows }: { header: string[]; rows: string[][] }) {
  const hidden = header.length - SHOWN_COLUMNS;
  return (
    <>
      <Table label="First rows of the file" head={header.slice(0, SHOWN_COLUMNS)}>
        {rows.slice(0, SHOWN_ROWS).map((row) => (
          <tr>
            {row.slice(0, SHOWN_COLUMNS).map((cell) => (
              <td>{cell}</td>
            ))}
          </tr>
        ))}
      </Table>
      {hidden > 0 && <p class="muted small">and {plural(hidden, "more column")}</p>}
    </>
  );
}

function FileOptions({ options, setOptions, header }: OptionsProps & { header: string[] }) {
  const set = (name: string) => (value: string) => setOptions({ ...options, [name]: value });
  return (
    <details class="options">
      <summary>Columns and options</summary>
      <p class="muted small">Usually not needed: columns are recognised by their names.</p>
      <div class="fields">
        {Object.entries(COLUMNS).map(([name, label]) => (
          <Field
            label={label}
            value={options[name] ?? ""}
            onValue={set(name)}
            placeholder="recognised by name"
            suggestions={header}
          />
        ))}
        <Field
          label="Minimum score"
          value={options.min_score ?? ""}
          onValue={set("min_score")}
          help="Rows with a lower score are skipped, for example ratings below 4."
        />
        <Field
          label="Items to leave out"
          value={options.exclude_items ?? ""}
          onValue={set("exclude_items")}
          help="Ids, separated by commas, such as those of postage."
        />
      </div>
    </details>
  );
}
