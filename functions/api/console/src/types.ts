/** JSON bodies of the API, as far as the console reads them. Members that only newer services send are optional. */

export interface Progress {
  phase: string;
  epoch: number | null;
  epochs: number | null;
  loss: number | null;
  validation_ndcg: number | null;
}

/** A finding in words; older services send only the text. */
export type Finding = string | { code: string; text: string };

export interface Report {
  mapping: Record<string, string>;
  mapping_source: string;
  format: Record<string, unknown>;
  ignored_columns: string[];
  lines: number;
  rows_used: number;
  bad_lines: number;
  errors: { code: string; detail: string; line?: number }[];
  skipped: Record<string, { count: number; lines: number[] }>;
  users: number;
  items: number;
  interactions: number;
  duplicates: number;
  users_with_one_interaction: number;
  density: number | null;
  first_time: string | null;
  last_time: string | null;
  warnings: Finding[];
  hints?: Finding[];
  advice?: Finding[];
}

/** An epoch of the learning curve. */
export interface Point {
  epoch: number;
  loss: number | null;
  ndcg: number | null;
}

/** Means over some of the measured users, of the model and of the popularity ranking. */
export interface GroupQuality {
  recall_at_20: number;
  ndcg_at_20: number;
  popularity_recall_at_20: number;
  popularity_ndcg_at_20: number;
}

export interface HistoryRow extends GroupQuality {
  shortest: number;
  longest: number | null;
  users: number;
}

export interface PopularityRow extends GroupQuality {
  items: number;
  most_users: number;
  fewest_users: number;
  held_out: number;
  share_of_interactions: number;
  share_of_recommendations: number;
  coverage_at_20: number;
}

/** Pairs whose score is in one interval: their mean score, and the share of them that were held out. */
export interface ReliabilityRow {
  mean_score: number;
  observed: number;
  pairs: number;
}

export interface Metrics {
  quality?: Record<string, number>;
  popularity_baseline?: Record<string, number>;
  lift_over_popularity?: number | null;
  lift_interval_95?: [number, number] | null;
  verdict?: string;
  training?: { curve?: { epoch: number; loss: number | null; validation_ndcg: number | null }[] };
  breakdowns?: { history_length: HistoryRow[]; item_popularity: PopularityRow[] };
  reliability?: { table: ReliabilityRow[] } | null;
}

export interface ProblemDocument {
  type: string;
  title: string;
  detail: string;
  hint?: string;
  errors?: { code?: string; detail: string; line?: number; field?: string }[];
}

export interface Job {
  job_id: string;
  key_id: string;
  status: string;
  purpose?: string;
  progress: Progress | null;
  report: Report | null;
  metrics: Metrics | null;
  problem: ProblemDocument | null;
  model_version: string | null;
  queue_position: number | null;
  estimated_wait_s: number | null;
  held_reasons?: { code: string; text: string }[];
  comparison?: { current: Record<string, unknown>; new: Record<string, unknown> } | null;
  created_at: string;
  updated_at: string;
}

/** The report of a catalogue job. */
export interface CatalogueReport {
  lines: number;
  bad_lines: number;
  errors: Report["errors"];
  added: number;
  updated: number;
  items: number;
  columns: Record<string, string>;
}

export interface CatalogueJob extends Omit<Job, "report"> {
  report: CatalogueReport | null;
}

export interface CataloguePage {
  total: number;
  columns: { name: string; kind: string }[];
}

export interface Accepted {
  job_id: string;
  key_id: string;
  api_key: string | null;
}

export interface UploadForm extends Accepted {
  url: string;
  fields: Record<string, string>;
  max_bytes: number;
}

export interface Version {
  version: string;
  job_id: string;
  created_at: string;
  current: boolean;
  metrics: Metrics;
  held?: boolean;
  held_reasons?: { code: string; text: string }[];
  pinned?: boolean;
}

export interface Versions {
  current_version: string | null;
  models: Version[];
}

export interface KeyInfo {
  catalogue_version?: string | null;
  key_id: string;
  created_at: string;
  current_version: string | null;
  expires_at: string | null;
  previous_key_expires_at: string | null;
}

export interface Issued {
  key_id: string;
  api_key: string;
}

export interface ScopedKey {
  scoped_key_id: string;
  name: string;
  scope: string;
  origins: string[];
  created_at: string;
}

export interface RecommendedItem {
  item_id: string;
  rank: number;
  score: number;
  attributes?: Record<string, unknown>;
  reasons?: { item_id: string; contribution: number; title?: string }[];
}

export interface Recommendations {
  strategy?: string;
  model_version: string;
  items: RecommendedItem[];
}

export interface Usage {
  limits: { name: string; limit: number; remaining: number; reset_s: number }[];
  versions: number;
  stored_bytes: number;
}

export interface AuditPage {
  events: { at: string; event: string; detail: Record<string, unknown> }[];
  next: string | null;
}
