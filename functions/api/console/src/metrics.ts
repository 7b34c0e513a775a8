/** What the metrics of a version contain. */

import type { Metrics, Point } from "./types";

/** The curve of a finished training, which also has the epochs that ended between two requests for the job. */
export function completeCurve(metrics: Metrics | null): Point[] | undefined {
  const points = metrics?.training?.curve;
  return points?.map(({ epoch, loss, validation_ndcg: ndcg }) => ({ epoch, loss, ndcg }));
}
