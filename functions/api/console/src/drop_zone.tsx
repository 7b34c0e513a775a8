/** A field for a file, which can be dropped or chosen. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  /** File name extensions, such as `.csv,.parquet`. */
  accept: string;
  onFile: (file: File) => void;
  children: ComponentChildren;
}

export function DropZone({ accept, onFile, children }: Props) {
  const [isOver, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const keep = (event: DragEvent) => event.preventDefault(); // otherwise a missed drop opens the file
    addEventListener("dragover", keep);
    addEventListener("drop", keep);
    return () => {
      removeEventListener("dragover", keep);
      removeEventListener("drop", keep);
    };
  }, []);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const file = event.dataTransfer?.files[0];
    if (file) onFile(file);
  };
  const pick = () => {
    const file = input.current?.files?.[0];
    if (file) onFile(file);
  };
  return (
    <label
      class={`drop ${isOver ? "over" : ""}`}
      onDragOver={() => setOver(true)}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <input ref={input} type="file" class="visually-hidden" onChange={pick} accept={accept} />
      <UploadIcon />
      {children}
    </label>
  );
}

function UploadIcon() {
  return (
    <svg viewBox="0 0 24 24" width="40" height="40" aria-hidden="true" class="icon">
      <path d="M12 16V5m0 0 4 4m-4-4L8 9M4 16v2a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-2" />
    </svg>
  );
}
