/** Recommendations as a shop would request them. */

import { useEffect, useState } from "preact/hooks";
import { address, RequestFailed } from "../api";
import { capabilities } from "../capabilities";
import { announce, go } from "../navigation";
import { Card, CopyButton, Field, PageTitle, ProblemBox, Select } from "../parts";
import { type Send, useRequests } from "../request";
import { ItemList } from "../items";
import { example } from "../session";
import type { KeyInfo, Recommendations } from "../types";

const KINDS = {
  user: "A user",
  basket: "A basket or session",
  similar: "Similar items",
  popular: "Popular items",
} as const;
type Kind = keyof typeof KINDS;

const STRATEGIES: Record<string, string> = {
  personal: "Based on the user's history.",
  session: "Based on the items of the session.",
  popular: "The user is unknown to the model, so these are popular items.",
};
/** Columns of an item catalogue that the page shows. */
const SHOWN_COLUMNS = ["title", "image_url", "url", "price", "category"];
const COUNTS = { "10": "10", "20": "20", "50": "50" } as const;

interface Query {
  kind: Kind;
  userId: string;
  items: string;
  itemId: string;
  filter: string;
  n: keyof typeof COUNTS;
}

export function TryPage() {
  const { userId = "", itemId = "" } = example.value;
  const [query, setQuery] = useState<Query>({
    kind: userId ? "user" : "popular",
    userId,
    items: "",
    itemId,
    filter: "",
    n: "10",
  });
  const [answer, setAnswer] = useState<Recommendations | null>(null);
  const [columns, setColumns] = useState<string[]>([]);
  const [isMissing, setMissing] = useState(false);
  const requests = useRequests();

  const show = (next: Query) => {
    setQuery(next);
    void requests.run(async (send) => {
      try {
        const shown = columns.length > 0 ? columns : await shownColumns(send);
        const received = await send<Recommendations>(...requestOf(next, shown));
        setColumns(shown);
        setAnswer(received);
        setMissing(false);
        announce(`${received.items.length} items.`);
      } catch (error) {
        setAnswer(null);
        if (!(error instanceof RequestFailed && error.status === 409)) throw error;
        setMissing(true);
      }
    });
  };
  useEffect(() => show(query), [capabilities.value]);

  return (
    <>
      <PageTitle intro="The same requests that a shop sends, with the current version of the model.">Try it</PageTitle>
      <Card>
        <QueryForm query={query} setQuery={setQuery} show={show} isBusy={requests.isBusy} />
      </Card>
      <ProblemBox problem={requests.problem} />
      {isMissing && <NoModel />}
      {answer && (
        <section aria-label="Recommendations">
          <p class="muted">{explanation(query, answer)}</p>
          <ItemList
            items={answer.items}
            onSimilar={(id) => show({ ...query, kind: "similar", itemId: id })}
            onBasket={(id) => show({ ...query, kind: "basket", items: [...idsOf(query.items), id].join("\n") })}
          />
          <Snippet request={requestOf(query, columns)} />
        </section>
      )}
    </>
  );
}

interface FormProps {
  query: Query;
  setQuery: (query: Query) => void;
  show: (query: Query) => void;
  isBusy: boolean;
}

function QueryForm({ query, setQuery, show, isBusy }: FormProps) {
  const submit = (event: Event) => {
    event.preventDefault();
    show(query);
  };
  const choose = (kind: Kind) => {
    const next = { ...query, kind };
    const isComplete = { user: next.userId, basket: next.items, similar: next.itemId, popular: "yes" }[kind];
    if (isComplete) show(next);
    else setQuery(next);
  };
  return (
    <form onSubmit={submit}>
      <fieldset class="segments">
        <legend class="visually-hidden">Recommend for</legend>
        {Object.entries(KINDS).map(([kind, text]) => (
          <label class={kind === query.kind ? "chosen" : ""}>
            <input
              type="radio"
              name="kind"
              class="visually-hidden"
              checked={kind === query.kind}
              onChange={() => choose(kind as Kind)}
            />
            {text}
          </label>
        ))}
      </fieldset>
      <div class="fields">
        {query.kind === "user" && (
          <Field label="User id" required value={query.userId} onValue={(userId) => setQuery({ ...query, userId })} />
        )}
        {query.kind === "similar" && (
          <Field label="Item id" required value={query.itemId} onValue={(itemId) => setQuery({ ...query, itemId })} />
        )}
        {query.kind === "basket" && <BasketField query={query} setQuery={setQuery} />}
        {capabilities.value.filter && query.kind !== "similar" && query.kind !== "popular" && (
          <Field
            label="Filter"
            value={query.filter}
            onValue={(filter) => setQuery({ ...query, filter })}
            placeholder="price < 20"
          />
        )}
        <Select label="Number of items" value={query.n} options={COUNTS} onValue={(n) => setQuery({ ...query, n })} />
      </div>
      <button type="submit" disabled={isBusy}>
        Show recommendations
      </button>
    </form>
  );
}

function BasketField({ query, setQuery }: Pick<FormProps, "query" | "setQuery">) {
  return (
    <div class="field wide">
      <label htmlFor="basket">Items, oldest first, one per line</label>
      <textarea
        id="basket"
        rows={3}
        required
        value={query.items}
        onInput={(event) => setQuery({ ...query, items: event.currentTarget.value })}
      />
    </div>
  );
}

function NoModel() {
  return (
    <Card title="There is no model yet">
      <p>Recommendations are available as soon as the first training is complete.</p>
      <button type="button" onClick={() => go("data")}>
        Go to the data
      </button>
    </Card>
  );
}

function Snippet({ request: [method, path, options] }: { request: Parameters<Send> }) {
  const url = address(path).href;
  const body = options?.json
    ? ` \\\n  -H 'Content-Type: application/json' -d '${quoted(JSON.stringify(options.json))}'`
    : "";
  const text = `curl ${method === "GET" ? `'${quoted(url)}'` : url} -H "X-API-Key: $RECSYS_API_KEY"${body}`;
  return (
    <details class="card">
      <summary>The request</summary>
      <pre tabIndex={0}>{text}</pre>
      <CopyButton text={text} />
    </details>
  );
}

const quoted = (text: string) => text.replaceAll("'", "'\\''");

const idsOf = (text: string) =>
  text
    .split(/\r?\n/)
    .map((id) => id.trim())
    .filter(Boolean);

/** Return the columns that the page shows and the catalogue of the key has; none if it has no catalogue. */
async function shownColumns(send: Send): Promise<string[]> {
  if (!capabilities.value.attributes) return [];
  const key = await send<KeyInfo>("GET", "v1/key");
  if (!key.catalogue_version) return [];
  const { columns } = await send<{ columns: { name: string }[] }>("GET", "v1/items?limit=1");
  return SHOWN_COLUMNS.filter((name) => columns.some((column) => column.name === name));
}

/** Return the arguments of the request that the form describes. */
function requestOf(query: Query, fields: string[]): Parameters<Send> {
  const { kind, filter } = query;
  if (kind === "popular" || kind === "similar") {
    const path = kind === "popular" ? "v1/popular" : `v1/items/${encodeURIComponent(query.itemId)}/similar`;
    const parameters = [["n", query.n], ...fields.map((name) => ["fields", name])];
    return ["GET", `${path}?${new URLSearchParams(parameters)}`];
  }
  const json = {
    ...(kind === "user" ? { user_id: query.userId } : { recent_items: idsOf(query.items) }),
    n: Number(query.n),
    ...(fields.length > 0 && { fields }),
    ...(capabilities.value.reasons && { explain: true }),
    ...(filter && { filter }),
  };
  return ["POST", "v1/recommendations", { json }];
}

function explanation(query: Query, answer: Recommendations): string {
  if (query.kind === "similar") return `Items that go with ${query.itemId}.`;
  if (query.kind === "popular") return "The items that most users interacted with.";
  return STRATEGIES[answer.strategy ?? ""] ?? "";
}
