/** The number and size of the versions, and the rate limits with their remaining requests. */

import { count, duration, size } from "./format";
import { Card, ProblemBox, Table } from "./parts";
import { useLoaded } from "./request";
import type { Usage } from "./types";

export function UsageCard() {
  const { value, problem } = useLoaded<Usage>("v1/usage");
  return (
    <Card title="Usage">
      <ProblemBox problem={problem} />
      {value && (
        <>
          <dl class="facts">
            <dt>Versions</dt>
            <dd>{count(value.versions)}</dd>
            <dt>Stored</dt>
            <dd>{size(value.stored_bytes)}</dd>
          </dl>
          <Table label="Limits" head={["Limit", "Remaining", "Of", "Full again in"]}>
            {value.limits.map((limit) => (
              <tr>
                <td>{limit.name}</td>
                <td>{count(limit.remaining)}</td>
                <td>{count(limit.limit)}</td>
                <td>{limit.reset_s > 0 ? duration(limit.reset_s) : "–"}</td>
              </tr>
            ))}
          </Table>
        </>
      )}
    </Card>
  );
}
