/** The page that `recsys train --report` writes: the plots of a training, drawn from the data inside of the page. */

import { render } from "preact";
import { LearningCurve } from "./curve";
import { ItemMap, type ItemMapData } from "./item_map";
import { completeCurve } from "./metrics";
import { Card } from "./parts";
import { Quality } from "./quality";
import { QualityPlots } from "./quality_plots";
import { ReportView } from "./report";
import type { Metrics, Report } from "./types";

interface TrainingReport {
  source: string;
  metrics: Metrics & { data: Report };
  items: ItemMapData;
}

function ReportPage({ source, metrics, items }: TrainingReport) {
  const curve = completeCurve(metrics) ?? [];
  return (
    <main>
      <div class="page-title">
        <h1>Training on {source}</h1>
      </div>
      <Card title="Quality">
        <Quality metrics={metrics} />
      </Card>
      {curve.length > 0 && (
        <Card title="Learning curve">
          <LearningCurve points={curve} />
        </Card>
      )}
      <QualityPlots metrics={metrics} />
      <ItemMap items={items} />
      <Card title="Data">
        <ReportView report={metrics.data} />
      </Card>
    </main>
  );
}

const data = document.getElementById("report")?.textContent ?? "";
const root = document.getElementById("app");
if (root) render(<ReportPage {...(JSON.parse(data) as TrainingReport)} />, root);
