import { render } from "preact";
import { App } from "./app";
import { loadCapabilities } from "./capabilities";
import "uplot/dist/uPlot.min.css";
import "./style.css";

void loadCapabilities();
const root = document.getElementById("console");
if (root) render(<App />, root);
