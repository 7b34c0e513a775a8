/** From a file to a published model: choose, check, train, and see the outcome. */

import { useEffect, useRef, useState } from "preact/hooks";
import { capabilities } from "../capabilities";
import { plural, size } from "../format";
import { Card, Field, PageTitle, ProblemBox, Table } from "../parts";
import { Progress } from "../progress";
import { ReportView } from "../report";
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
  if (!current) return <DropZone onFile={(file) => void receive(file)} />;
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

function DropZone({ onFile }: { onFile: (file: File) => void }) {
  const [isOver, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const keep = (event: DragEvent) => event.preventDefault(); // otherwise a missed drop opens the file
    addEventListener("dragover", keep);
    addEventListener("drop", keep);
    return () => {
      removeEventListener("dragover", keep);
      removeEventListener("drop", keep);
    };
  }, []);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const file = event.dataTransfer?.files[0];
    if (file) onFile(file);
  };
  const pick = () => {
    const file = input.current?.files?.[0];
    if (file) onFile(file);
  };
  return (
    <label
      class={`drop ${isOver ? "over" : ""}`}
      onDragOver={() => setOver(true)}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <input
        ref={input}
        type="file"
        class="visually-hidden"
        onChange={pick}
        accept=".csv,.tsv,.txt,.gz,.zst,.zip,.parquet"
      />
      <UploadIcon />
      <strong>Drop a CSV or Parquet file here</strong>
      <span class="muted">
        or click to choose one. Exports of Shopify, WooCommerce and other shops work as they are.
      </span>
    </label>
  );
}

function UploadIcon() {
  return (
    <svg viewBox="0 0 24 24" width="40" height="40" aria-hidden="true" class="icon">
      <path d="M12 16V5m0 0 4 4m-4-4L8 9M4 16v2a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-2" />
    </svg>
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
