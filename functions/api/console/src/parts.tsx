/** Parts that several pages use. */

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { announce } from "./navigation";
import type { Finding, ProblemDocument } from "./types";

interface WithChildren {
  children: ComponentChildren;
}

/** Heading of a page. It receives the focus when the page is opened, so that screen readers begin there. */
export function PageTitle({ children, intro }: WithChildren & { intro?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <div class="page-title">
      <h1 ref={heading} tabIndex={-1}>
        {children}
      </h1>
      {intro && <p class="muted">{intro}</p>}
    </div>
  );
}

export function Card({ title, children, kind = "" }: WithChildren & { title?: ComponentChildren; kind?: string }) {
  const id = useId();
  return (
    <section class={`card ${kind}`} {...(title ? { "aria-labelledby": id } : {})}>
      {title && <h2 id={id}>{title}</h2>}
      {children}
    </section>
  );
}

export function ProblemBox({ problem }: { problem: ProblemDocument | null }) {
  if (!problem) return null;
  const errors = problem.errors?.slice(0, 5) ?? [];
  return (
    <div class="notice bad" role="alert">
      <strong>{problem.title}</strong>
      <p>{problem.detail}</p>
      {problem.hint && <p>{problem.hint}</p>}
      {errors.length > 0 && (
        <ul>
          {errors.map((error) => (
            <li>
              {error.line ? `Line ${error.line}: ` : ""}
              {error.detail}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

export function Findings({ title, findings, kind }: { title: string; findings: Finding[]; kind: "warn" | "info" }) {
  if (findings.length === 0) return null;
  return (
    <div class={`notice ${kind}`}>
      <strong>{title}</strong>
      <ul>
        {findings.map((finding) => (
          <li>{typeof finding === "string" ? finding : finding.text}</li>
        ))}
      </ul>
    </div>
  );
}

interface FieldProps {
  label: string;
  value: string;
  onValue: (value: string) => void;
  help?: ComponentChildren;
  suggestions?: string[];
  isSecret?: boolean;
  placeholder?: string;
  required?: boolean;
  maxLength?: number;
}

/** A labelled text field. Its content is data, so the browser neither completes nor corrects it. */
export function Field({ label, value, onValue, help, suggestions, isSecret, ...rest }: FieldProps) {
  const id = useId();
  const attributes = {
    ...rest,
    id,
    autocomplete: "off",
    spellcheck: false,
    value,
    onInput: (event: Event) => onValue((event.currentTarget as HTMLInputElement).value),
    ...(help ? { "aria-describedby": `${id}-help` } : {}),
  };
  return (
    <div class="field">
      <label htmlFor={id}>{label}</label>
      {isSecret ? (
        <input {...attributes} type="password" />
      ) : suggestions ? (
        <input {...attributes} type="text" list={`${id}-list`} />
      ) : (
        <input {...attributes} type="text" />
      )}
      {suggestions && (
        <datalist id={`${id}-list`}>
          {suggestions.map((text) => (
            <option value={text} />
          ))}
        </datalist>
      )}
      {help && (
        <small id={`${id}-help`} class="muted">
          {help}
        </small>
      )}
    </div>
  );
}

interface SelectProps<T extends string> {
  label: string;
  value: T;
  onValue: (value: T) => void;
  options: Record<T, string>;
}

/** A labelled choice. */
export function Select<T extends string>({ label, value, onValue, options }: SelectProps<T>) {
  const id = useId();
  return (
    <div class="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onValue(event.currentTarget.value as T)}>
        {Object.entries<string>(options).map(([name, text]) => (
          <option value={name}>{text}</option>
        ))}
      </select>
    </div>
  );
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      announce("Copied.");
    } catch {
      announce("The browser does not permit copying. Select the text instead.");
    }
  };
  return (
    <button type="button" class="secondary" onClick={copy}>
      {isCopied ? "Copied" : label}
    </button>
  );
}

/** A secret that is shown once. */
export function Secret({ title, secret, onDone }: { title: string; secret: string; onDone: () => void }) {
  return (
    <section class="notice good secret" aria-label={title}>
      <strong>{title}</strong>
      <p>Store it now, for example in a password manager. It is shown only once.</p>
      <div class="row">
        <code class="key">{secret}</code>
        <CopyButton text={secret} label="Copy key" />
        <button type="button" class="secondary" onClick={onDone}>
          I have stored it
        </button>
      </div>
    </section>
  );
}

interface ConfirmProps extends WithChildren {
  label: string;
  title: string;
  confirm: string;
  onConfirm: () => void;
  kind?: string;
}

/** A button that asks for confirmation in a dialog. The browser keeps the focus inside of it. */
export function ConfirmButton({ label, title, confirm, onConfirm, children, kind = "danger" }: ConfirmProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  const accept = () => {
    dialog.current?.close();
    onConfirm();
  };
  return (
    <>
      <button type="button" class={kind} onClick={() => dialog.current?.showModal()}>
        {label}
      </button>
      <dialog ref={dialog} aria-labelledby={id}>
        <h2 id={id}>{title}</h2>
        <div>{children}</div>
        <div class="row end">
          <button type="button" class="secondary" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="button" class={kind} onClick={accept}>
            {confirm}
          </button>
        </div>
      </dialog>
    </>
  );
}

export function Loading() {
  return <p class="muted">Loading …</p>;
}

/** A table that scrolls inside of its own frame on narrow screens. */
export function Table({ label, head, children }: WithChildren & { label: string; head: string[] }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            {head.map((text) => (
              <th scope="col">{text}</th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
