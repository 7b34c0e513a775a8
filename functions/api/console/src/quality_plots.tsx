/** For whom, and with which items, a model ranks well: plots of the metrics of a version. */

import { count, metric, percent, range } from "./format";
import { Card, Table } from "./parts";
import { BarPlot, Legend } from "./plot";
import { ReliabilityCard } from "./reliability";
import type { HistoryRow, Metrics, PopularityRow } from "./types";

export function QualityPlots({ metrics }: { metrics: Metrics }) {
  const { breakdowns, reliability } = metrics;
  return (
    <>
      {breakdowns && breakdowns.history_length.length > 0 && <ByHistoryLength rows={breakdowns.history_length} />}
      {breakdowns && breakdowns.item_popularity.length > 0 && <ByItemPopularity rows={breakdowns.item_popularity} />}
      {reliability && reliability.table.length > 0 && <ReliabilityCard rows={reliability.table} />}
    </>
  );
}

function ByHistoryLength({ rows }: { rows: HistoryRow[] }) {
  const groups = rows.map((row) => range(row.shortest, row.longest));
  return (
    <Card title="Quality by length of the history">
      <BarPlot
        label={`NDCG@20 by number of items in the history. ${summary(rows, groups, "items")}`}
        caption={
          <>
            NDCG@20 of <Legend names={["this model", "popularity"]} />
          </>
        }
        groups={groups}
        axisLabel="Items in the user's history"
        values={[rows.map((row) => row.ndcg_at_20), rows.map((row) => row.popularity_ndcg_at_20)]}
      >
        <Table
          label="Quality by length of the history"
          head={["Items in the history", "Measured users", "NDCG@20", "Popularity", "Recall@20", "Popularity"]}
        >
          {rows.map((row, index) => (
            <tr>
              <td>{groups[index]}</td>
              <td>{count(row.users)}</td>
              <td>{metric(row.ndcg_at_20)}</td>
              <td>{metric(row.popularity_ndcg_at_20)}</td>
              <td>{metric(row.recall_at_20)}</td>
              <td>{metric(row.popularity_recall_at_20)}</td>
            </tr>
          ))}
        </Table>
      </BarPlot>
    </Card>
  );
}

function ByItemPopularity({ rows }: { rows: PopularityRow[] }) {
  const groups = rows.map((row) => range(row.fewest_users, row.most_users));
  return (
    <Card title="Quality by popularity of the item">
      <p class="muted small">
        Each group has about a fifth of all interactions: a few popular items on the left, many rare ones on the right.
      </p>
      <div class="columns">
        <BarPlot
          label={`NDCG@20 by number of users of the held-out item. ${summary(rows, groups, "users")}`}
          caption={
            <>
              NDCG@20 of <Legend names={["this model", "popularity"]} />
            </>
          }
          groups={groups}
          axisLabel="Users of the item"
          values={[rows.map((row) => row.ndcg_at_20), rows.map((row) => row.popularity_ndcg_at_20)]}
        />
        <BarPlot
          label="Share of the interactions and of the recommendations by number of users of the item"
          caption={
            <>
              Share of the <Legend names={["interactions", "recommendations"]} />
            </>
          }
          groups={groups}
          axisLabel="Users of the item"
          values={[rows.map((row) => row.share_of_interactions), rows.map((row) => row.share_of_recommendations)]}
        />
      </div>
      <details>
        <summary>Show as a table</summary>
        <PopularityTable rows={rows} groups={groups} />
      </details>
    </Card>
  );
}

function PopularityTable({ rows, groups }: { rows: PopularityRow[]; groups: string[] }) {
  return (
    <Table
      label="Quality by popularity of the item"
      head={[
        "Users of the item",
        "Items",
        "Recommended",
        "Share of interactions",
        "Share of recommendations",
        "Held out",
        "NDCG@20",
        "Popularity",
        "Recall@20",
        "Popularity",
      ]}
    >
      {rows.map((row, index) => (
        <tr>
          <td>{groups[index]}</td>
          <td>{count(row.items)}</td>
          <td>{percent(row.coverage_at_20)}</td>
          <td>{percent(row.share_of_interactions)}</td>
          <td>{percent(row.share_of_recommendations)}</td>
          <td>{count(row.held_out)}</td>
          <td>{metric(row.ndcg_at_20)}</td>
          <td>{metric(row.popularity_ndcg_at_20)}</td>
          <td>{metric(row.recall_at_20)}</td>
          <td>{metric(row.popularity_recall_at_20)}</td>
        </tr>
      ))}
    </Table>
  );
}

function summary(rows: { ndcg_at_20: number }[], groups: string[], unit: string): string {
  return rows.map((row, index) => `${groups[index]} ${unit}: ${metric(row.ndcg_at_20)}`).join(", ");
}
