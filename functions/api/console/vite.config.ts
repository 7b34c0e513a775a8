import { defineConfig } from "vite";

// The assets have fixed names, because the function `api` adds a version to their URLs. Their page is console.html in
// the static files of that function.
export default defineConfig({
  build: {
    target: "es2022",
    outDir: "dist",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    rollupOptions: {
      input: "src/main.tsx",
      output: { entryFileNames: "console.js", assetFileNames: "console.[ext]" },
    },
  },
});
