import { defineConfig } from "vite";

// The assets have fixed names, because the function `api` adds a version to their URLs. The page of the console is
// console.html in the static files of that function. `--mode report` builds the script of the training report instead,
// which is part of the page itself and therefore one script without imports; it uses the style sheet of the console.
export default defineConfig(({ mode }) => ({
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: mode !== "report",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    rollupOptions:
      mode === "report"
        ? { input: "src/report_page.tsx", output: { entryFileNames: "report.js", format: "iife" as const } }
        : {
            input: "src/main.tsx",
            output: { entryFileNames: "console.js", assetFileNames: "console.[ext]" },
          },
  },
}));
