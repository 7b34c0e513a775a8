/** The item catalogue of the key: what it contains, and the upload of a new one. */

import { useCallback, useEffect, useState } from "preact/hooks";
import { count, plural } from "./format";
import { announce } from "./navigation";
import { DropZone } from "./drop_zone";
import { Card, ConfirmButton, ProblemBox, Select } from "./parts";
import { type Send, useRequests } from "./request";
import { isFinal } from "./training";
import type { CatalogueJob, CataloguePage, CatalogueReport, KeyInfo, ProblemDocument } from "./types";

const OTHERS = { PUT: "are removed", PATCH: "are kept" } as const;
const POLL_MS = 500;

export function CatalogueCard() {
  const [catalogue, setCatalogue] = useState<CataloguePage | null>(null);
  const [report, setReport] = useState<CatalogueReport | null>(null);
  const [failure, setFailure] = useState<ProblemDocument | null>(null);
  const [method, setMethod] = useState<keyof typeof OTHERS>("PUT");
  const [isReading, setReading] = useState(false);
  const { run, problem } = useRequests();
  useEffect(() => void run(async (send) => setCatalogue(await loaded(send))), [run]);

  const receive = useCallback(
    async (file: File) => {
      setReport(null);
      setFailure(null);
      setReading(true);
      await run(async (send) => {
        const body = new FormData();
        body.append("file", file);
        const job = await finished(send, await send<CatalogueJob>(method, "v1/items", { body }));
        setFailure(job.problem);
        setReport(job.problem ? null : job.report);
        if (job.report && !job.problem) setCatalogue(contentsOf(job.report));
        announce(job.problem ? "The catalogue was not changed." : "The catalogue was changed.");
      });
      setReading(false);
    },
    [run, method],
  );
  const remove = () =>
    run(async (send) => {
      await send("DELETE", "v1/items");
      setReport(null);
      setCatalogue(null);
      announce("The catalogue was deleted.");
    });
  return (
    <Card title="Item catalogue">
      <p class="muted">
        Titles, prices, categories and availability of your items, with a column <code>item_id</code>. Needs no training.
      </p>
      {catalogue && <Contents catalogue={catalogue} />}
      <ProblemBox problem={failure ?? problem} />
      {report && <Changes report={report} />}
      {catalogue && (
        <Select label="Items that the file does not contain" value={method} options={OTHERS} onValue={setMethod} />
      )}
      <DropZone accept=".csv,.tsv,.txt,.gz,.zst,.zip,.parquet,.json,.jsonl,.ndjson" onFile={(file) => void receive(file)}>
        <strong>{isReading ? "Reading the catalogue …" : "Drop a catalogue here"}</strong>
        <span class="muted">or click to choose one. CSV, JSON Lines, JSON and Parquet work.</span>
      </DropZone>
      {catalogue && (
        <ConfirmButton
          label="Delete the catalogue"
          title="Delete the catalogue?"
          confirm="Delete"
          onConfirm={() => void remove()}
        >
          <p>Recommendations then consist of ids, and filters no longer work.</p>
        </ConfirmButton>
      )}
    </Card>
  );
}

function Contents({ catalogue }: { catalogue: CataloguePage }) {
  return (
    <p>
      <strong>{plural(catalogue.total, "item")}</strong> with the columns{" "}
      {catalogue.columns.map(({ name }) => name).join(", ") || "none"}.
    </p>
  );
}

function Changes({ report }: { report: CatalogueReport }) {
  return (
    <div class="notice good">
      <strong>The catalogue is ready</strong>
      <p>
        {plural(report.lines, "line")}: {count(report.added)} items added, {count(report.updated)} updated
        {report.bad_lines > 0 && `, ${plural(report.bad_lines, "bad line")} ignored`}.
      </p>
      {report.errors.length > 0 && (
        <ul>
          {report.errors.slice(0, 5).map((error) => (
            <li>{error.detail}</li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** Return the contents after a change, because `GET /v1/items` can return the previous contents for some seconds. */
function contentsOf({ items, columns }: CatalogueReport): CataloguePage {
  return { total: items, columns: Object.entries(columns).map(([name, kind]) => ({ name, kind })) };
}

async function loaded(send: Send): Promise<CataloguePage | null> {
  const key = await send<KeyInfo>("GET", "v1/key");
  return key.catalogue_version ? send<CataloguePage>("GET", "v1/items?limit=1") : null;
}

async function finished(send: Send, job: CatalogueJob): Promise<CatalogueJob> {
  let latest = job;
  while (!isFinal(latest)) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    latest = await send<CatalogueJob>("GET", `v1/jobs/${job.job_id}`);
  }
  return latest;
}
