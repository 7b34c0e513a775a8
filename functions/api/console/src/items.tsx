/** Recommended items, with titles, pictures and reasons where the service has them. */

import type { RecommendedItem } from "./types";

interface Props {
  items: RecommendedItem[];
  onSimilar: (itemId: string) => void;
  onBasket: (itemId: string) => void;
}

export function ItemList({ items, onSimilar, onBasket }: Props) {
  if (items.length === 0) return <p>No item is eligible.</p>;
  return (
    <ol class="items">
      {items.map((item) => (
        <Item key={item.item_id} item={item} onSimilar={onSimilar} onBasket={onBasket} />
      ))}
    </ol>
  );
}

function Item({ item, onSimilar, onBasket }: Omit<Props, "items"> & { item: RecommendedItem }) {
  const title = text(item.attributes?.title);
  const name = title ?? item.item_id;
  return (
    <li class="item">
      <Picture address={webAddress(item.attributes?.image_url)} />
      <div class="item-text">
        <h2>
          <span class="rank">{item.rank}</span>
          <Title name={name} address={webAddress(item.attributes?.url)} />
        </h2>
        <p class="muted small">{[title && item.item_id, ...details(item)].filter(Boolean).join(" · ")}</p>
        <div class="score">
          <meter min={0} max={1} value={item.score} aria-label={`Score of ${name}`} />
          <span class="muted small">{item.score.toFixed(3)}</span>
        </div>
        <Reasons item={item} />
        <div class="row">
          <button type="button" class="quiet" onClick={() => onSimilar(item.item_id)} aria-label={`Similar: ${name}`}>
            Similar
          </button>
          <button
            type="button"
            class="quiet"
            onClick={() => onBasket(item.item_id)}
            aria-label={`Add to basket: ${name}`}
          >
            Add to basket
          </button>
        </div>
      </div>
    </li>
  );
}

function Picture({ address }: { address: string | undefined }) {
  if (!address) return null;
  return <img src={address} alt="" loading="lazy" referrerpolicy="no-referrer" width="72" height="72" />;
}

function Title({ name, address }: { name: string; address: string | undefined }) {
  if (!address) return <span class="name">{name}</span>;
  return (
    <a class="name" href={address} rel="noreferrer" target="_blank">
      {name}
    </a>
  );
}

function Reasons({ item }: { item: RecommendedItem }) {
  if (!item.reasons?.length) return null;
  const names = item.reasons.map((reason) => reason.title ?? reason.item_id);
  return <p class="small">Because of {names.join(", ")}</p>;
}

function details(item: RecommendedItem): (string | undefined)[] {
  const { price, category } = item.attributes ?? {};
  return [text(category), typeof price === "number" ? price.toFixed(2) : undefined];
}

const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);

/** Return an HTTP address of the catalogue. Other addresses, such as `javascript:…`, could run scripts and are ignored. */
const webAddress = (value: unknown) => {
  const address = text(value);
  return address && /^https?:\/\//i.test(address) ? address : undefined;
};
