/** The audit log of the key, newest events first. */

import { useEffect, useState } from "preact/hooks";
import { dateTime } from "./format";
import { Card, ProblemBox, Table } from "./parts";
import { useRequests } from "./request";
import type { AuditPage } from "./types";

export function Audit() {
  const [events, setEvents] = useState<AuditPage["events"]>([]);
  const [next, setNext] = useState<string | null>(null);
  const { run, problem, isBusy } = useRequests();
  const load = (cursor: string | null) =>
    run(async (send) => {
      const query = cursor ? `?cursor=${encodeURIComponent(cursor)}` : "";
      const received = await send<AuditPage>("GET", `v1/audit${query}`);
      setEvents((known) => (cursor ? [...known, ...received.events] : received.events));
      setNext(received.next);
    });
  useEffect(() => void load(null), []);
  return (
    <Card title="History">
      <ProblemBox problem={problem} />
      <Table label="History" head={["Time", "Event", "Details"]}>
        {events.map((event) => (
          <tr>
            <td>{dateTime(event.at)}</td>
            <td>{event.event}</td>
            <td>{detailText(event.detail)}</td>
          </tr>
        ))}
      </Table>
      {next && (
        <button type="button" class="secondary" disabled={isBusy} onClick={() => void load(next)}>
          Show older events
        </button>
      )}
    </Card>
  );
}

function detailText(detail: Record<string, unknown>): string {
  return Object.entries(detail)
    .map(([name, value]) => `${name}: ${String(value)}`)
    .join(", ");
}
