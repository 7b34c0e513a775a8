/** The versions of the model: compare, roll back, publish a held one, pin. */

import { useState } from "preact/hooks";
import { capabilities } from "../capabilities";
import { LearningCurve } from "../curve";
import { dateTime, metric, shortVersion } from "../format";
import { completeCurve } from "../metrics";
import { announce, go } from "../navigation";
import { Card, ConfirmButton, Loading, PageTitle, ProblemBox } from "../parts";
import { Quality } from "../quality";
import { QualityPlots } from "../quality_plots";
import { type Send, useLoaded, useRequests } from "../request";
import type { Metrics, Version, Versions } from "../types";

export function VersionsPage() {
  const loaded = useLoaded<Versions>("v1/models");
  const requests = useRequests();
  const change = (text: string, action: (send: Send) => Promise<unknown>) =>
    requests.run(async (send) => {
      await action(send);
      await loaded.reload();
      announce(text);
    });
  return (
    <>
      <PageTitle intro="Every training publishes a version. The current one responds to requests.">Versions</PageTitle>
      <ProblemBox problem={requests.problem ?? loaded.problem} />
      {!loaded.value && !loaded.problem && <Loading />}
      {loaded.value?.models.length === 0 && (
        <Card>
          <p>There is no version yet.</p>
          <button type="button" onClick={() => go("data")}>
            Train on a file
          </button>
        </Card>
      )}
      <ul class="versions">
        {loaded.value?.models.map((version) => (
          <VersionEntry key={version.version} version={version} isBusy={requests.isBusy} change={change} />
        ))}
      </ul>
    </>
  );
}

interface EntryProps {
  version: Version;
  isBusy: boolean;
  change: (text: string, action: (send: Send) => Promise<unknown>) => Promise<void>;
}

function VersionEntry({ version, isBusy, change }: EntryProps) {
  const path = `v1/models/${version.version}`;
  const { quality, popularity_baseline: popularity, lift_over_popularity: lift } = version.metrics;
  const activate = () => change("The version is current.", (send) => send("POST", `${path}/activate`));
  const pin = () =>
    change(version.pinned ? "The version is no longer pinned." : "The version is pinned.", (send) =>
      send(version.pinned ? "DELETE" : "POST", `${path}/pin`),
    );
  return (
    <li class={`card ${version.current ? "current" : ""}`}>
      <div class="split">
        <div>
          <h2>
            <span title={version.version}>{dateTime(version.created_at)}</span>
            {version.current && <span class="badge good">Current</span>}
            {version.held && <span class="badge warn">Held</span>}
            {version.pinned && <span class="badge">Pinned</span>}
          </h2>
          <p class="muted small">
            Version <code>{shortVersion(version.version)}</code>
          </p>
        </div>
        <dl class="figures compact">
          <div>
            <dt>NDCG@20</dt>
            <dd>{metric(quality?.ndcg_at_20)}</dd>
          </div>
          <div>
            <dt>Popularity</dt>
            <dd>{metric(popularity?.ndcg_at_20)}</dd>
          </div>
          {lift != null && (
            <div>
              <dt>Lift</dt>
              <dd>{lift.toFixed(1)}×</dd>
            </div>
          )}
        </dl>
      </div>
      {version.held_reasons && version.held_reasons.length > 0 && (
        <ul class="muted">
          {version.held_reasons.map((reason) => (
            <li>{reason.text}</li>
          ))}
        </ul>
      )}
      {(!version.current || capabilities.value.pin) && (
        <div class="row">
          {!version.current && (
            <ConfirmButton
              label={version.held ? "Publish anyway" : "Make current"}
              title={version.held ? "Publish this version?" : "Make this version current?"}
              confirm={version.held ? "Publish" : "Make current"}
              kind="secondary"
              onConfirm={() => void activate()}
            >
              <p>Recommendations switch to the version of {dateTime(version.created_at)} within seconds.</p>
            </ConfirmButton>
          )}
          {capabilities.value.pin && (
            <button type="button" class="secondary" disabled={isBusy} onClick={() => void pin()}>
              {version.pinned ? "Unpin" : "Pin"}
            </button>
          )}
        </div>
      )}
      <Details metrics={version.metrics} />
    </li>
  );
}

/** The plots of a version. They are drawn when they are opened, because a hidden plot has no size. */
function Details({ metrics }: { metrics: Metrics }) {
  const [isOpen, setOpen] = useState(false);
  const curve = completeCurve(metrics) ?? [];
  return (
    <details class="options" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Quality in detail</summary>
      {isOpen && (
        <>
          <Quality metrics={metrics} />
          {curve.length > 0 && (
            <section class="card" aria-label="Learning curve">
              <h3>Learning curve</h3>
              <LearningCurve points={curve} />
            </section>
          )}
          <QualityPlots metrics={metrics} />
        </>
      )}
    </details>
  );
}
