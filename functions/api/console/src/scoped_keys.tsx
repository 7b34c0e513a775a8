/** Scoped keys: list, create and delete. */

import { useState } from "preact/hooks";
import { date } from "./format";
import { announce } from "./navigation";
import { Card, ConfirmButton, Field, ProblemBox, Secret, Select, Table } from "./parts";
import { useLoaded, useRequests } from "./request";
import type { ScopedKey } from "./types";

const SCOPES = { recommend: "Recommend (for web pages)", train: "Train (for the job that uploads data)" } as const;
type Scope = keyof typeof SCOPES;

export function ScopedKeys() {
  const loaded = useLoaded<{ keys: ScopedKey[] }>("v1/keys");
  const [secret, setSecret] = useState<string | null>(null);
  const requests = useRequests();
  const remove = (key: ScopedKey) =>
    requests.run(async (send) => {
      await send("DELETE", `v1/keys/${key.scoped_key_id}`);
      await loaded.reload();
      announce(`The key ${key.name} was deleted.`);
    });
  const created = async (key: string) => {
    setSecret(key);
    await loaded.reload();
  };
  return (
    <Card title="Scoped keys">
      <p class="muted">A scoped key can do only one thing, so it may be part of a web page or of an import job.</p>
      {secret && <Secret title="New scoped key" secret={secret} onDone={() => setSecret(null)} />}
      <ProblemBox problem={requests.problem ?? loaded.problem} />
      {loaded.value && loaded.value.keys.length > 0 && (
        <Table label="Scoped keys" head={["Name", "Scope", "Origins", "Created", "Actions"]}>
          {loaded.value.keys.map((key) => (
            <tr>
              <td>{key.name}</td>
              <td>{key.scope}</td>
              <td>{key.origins.join(", ") || "–"}</td>
              <td>{date(key.created_at)}</td>
              <td>
                <ConfirmButton
                  label="Delete"
                  title={`Delete the key ${key.name}?`}
                  confirm="Delete"
                  onConfirm={() => void remove(key)}
                >
                  <p>Requests with it fail from now on.</p>
                </ConfirmButton>
              </td>
            </tr>
          ))}
        </Table>
      )}
      <CreateForm onCreated={created} />
    </Card>
  );
}

function CreateForm({ onCreated }: { onCreated: (key: string) => Promise<void> }) {
  const [name, setName] = useState("");
  const [scope, setScope] = useState<Scope>("recommend");
  const [origins, setOrigins] = useState("");
  const requests = useRequests();
  const create = (event: Event) => {
    event.preventDefault();
    void requests.run(async (send) => {
      const list = scope === "recommend" ? origins.split(/[\s,]+/).filter(Boolean) : [];
      const issued = await send<{ api_key: string }>("POST", "v1/keys", { json: { name, scope, origins: list } });
      setName("");
      setOrigins("");
      await onCreated(issued.api_key);
      announce("The scoped key was created.");
    });
  };
  return (
    <form onSubmit={create}>
      <h3>Create a scoped key</h3>
      <div class="fields">
        <Field label="Name" required maxLength={100} value={name} onValue={setName} placeholder="shop page" />
        <Select label="Scope" value={scope} onValue={setScope} options={SCOPES} />
        {scope === "recommend" && (
          <Field
            label="Origins"
            value={origins}
            onValue={setOrigins}
            placeholder="https://shop.example"
            help="Pages that may use the key, separated by spaces."
          />
        )}
      </div>
      <ProblemBox problem={requests.problem} />
      <button type="submit" class="secondary" disabled={requests.isBusy}>
        Create the key
      </button>
    </form>
  );
}
