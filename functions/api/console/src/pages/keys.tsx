/** The API key of this tab: rotate and revoke it, its scoped keys, its usage and its audit log. */

import { useState } from "preact/hooks";
import { Audit } from "../audit";
import { capabilities } from "../capabilities";
import { dateTime } from "../format";
import { Card, ConfirmButton, Loading, PageTitle, ProblemBox, Select } from "../parts";
import { useLoaded, useRequests } from "../request";
import { ScopedKeys } from "../scoped_keys";
import { keepKey } from "../session";
import { leave } from "../training";
import type { Issued, KeyInfo } from "../types";
import { UsageCard } from "../usage";

const OVERLAPS = { "0": "at once", "3600": "after an hour", "86400": "after a day", "604800": "after a week" } as const;

export function KeysPage() {
  const loaded = useLoaded<KeyInfo>("v1/key");
  return (
    <>
      <PageTitle intro="The key identifies your model. Keep it on your servers, and give web pages a publishable key.">
        Keys
      </PageTitle>
      <ProblemBox problem={loaded.problem} />
      {loaded.value ? <MainKey info={loaded.value} reload={loaded.reload} /> : !loaded.problem && <Loading />}
      <ScopedKeys />
      {capabilities.value.usage && <UsageCard />}
      {capabilities.value.audit && <Audit />}
      <Revoke />
    </>
  );
}

function MainKey({ info, reload }: { info: KeyInfo; reload: () => Promise<void> }) {
  const [overlap, setOverlap] = useState<keyof typeof OVERLAPS>("86400");
  const requests = useRequests();
  const rotate = () =>
    requests.run(async (send) => {
      const issued = await send<Issued>("POST", "v1/key/rotate", { json: { overlap_s: Number(overlap) } });
      keepKey(issued.api_key, { show: true });
      await reload();
      scrollTo({ top: 0 });
    });
  return (
    <Card title="API key">
      <dl class="facts">
        <dt>Key id</dt>
        <dd>
          <code>{info.key_id}</code>
        </dd>
        <dt>Created</dt>
        <dd>{dateTime(info.created_at)}</dd>
        {info.expires_at && (
          <>
            <dt>Expires</dt>
            <dd>{dateTime(info.expires_at)}, unless a model is published</dd>
          </>
        )}
        {info.previous_key_expires_at && (
          <>
            <dt>Previous key</dt>
            <dd>valid until {dateTime(info.previous_key_expires_at)}</dd>
          </>
        )}
      </dl>
      <ProblemBox problem={requests.problem} />
      <div class="row bottom">
        <Select label="The previous key ends" value={overlap} onValue={setOverlap} options={OVERLAPS} />
        <button type="button" class="secondary" disabled={requests.isBusy} onClick={() => void rotate()}>
          Rotate the key
        </button>
      </div>
    </Card>
  );
}

function Revoke() {
  const requests = useRequests();
  const revoke = () =>
    requests.run(async (send) => {
      await send("DELETE", "v1/key");
      leave("The key was revoked.");
    });
  return (
    <Card title="Revoke">
      <p>Revoking the key ends all recommendations with it and with its scoped keys. This cannot be undone.</p>
      <ProblemBox problem={requests.problem} />
      <ConfirmButton label="Revoke the key" title="Revoke the key?" confirm="Revoke" onConfirm={() => void revoke()}>
        <p>Recommendations stop within seconds, and no new key can be created for this model.</p>
      </ConfirmButton>
    </Card>
  );
}
