/** Capabilities of the service, read from its OpenAPI document. A part of the page without its route is not shown. */

import { signal } from "@preact/signals";
import { call } from "./api";

interface Document {
  paths?: Record<string, Record<string, unknown>>;
  components?: { schemas?: Record<string, { properties?: Record<string, unknown> }> };
}

export interface Capabilities {
  validate: boolean;
  pin: boolean;
  usage: boolean;
  audit: boolean;
  attributes: boolean;
  reasons: boolean;
  filter: boolean;
  catalogue: boolean;
}

const NONE: Capabilities = {
  validate: false,
  pin: false,
  usage: false,
  audit: false,
  attributes: false,
  reasons: false,
  filter: false,
  catalogue: false,
};

export const capabilities = signal<Capabilities>(NONE);

export async function loadCapabilities(): Promise<void> {
  const document = await call<Document>("GET", "openapi.json").catch((): Document => ({}));
  const has = (method: string, path: string) => document.paths?.[path]?.[method] !== undefined;
  const fields = Object.values(document.components?.schemas ?? {})
    .map((schema) => schema.properties ?? {})
    .filter((properties) => "recent_items" in properties);
  const takes = (name: string) => fields.some((properties) => name in properties);
  capabilities.value = {
    validate: has("post", "/v1/validate"),
    pin: has("post", "/v1/models/{version}/pin"),
    usage: has("get", "/v1/usage"),
    audit: has("get", "/v1/audit"),
    attributes: takes("fields"),
    reasons: takes("explain"),
    filter: takes("filter"),
    catalogue: has("put", "/v1/items"),
  };
}
