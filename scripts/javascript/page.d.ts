// Types that the page's modules share, for `tsc`. This file is not served.

type Protocol = typeof import("protocol");
type ServerFrame = import("protocol").ServerFrame;
type ClientFrame = import("protocol").ClientFrame;
type StatusFrame = import("protocol").Status;
type TokenFrame = import("protocol").Token;
type ErrorFrame = import("protocol").Error;
type EndFrame = import("protocol").Complete | ErrorFrame;
type StatusMetadata = StatusFrame["metadata"];
type Metadata<E extends StatusMetadata["event"]> = Extract<StatusMetadata, { event: E }>;
type ToolMetadata = Metadata<"tool.started" | "tool.progress" | "tool.finished" | "tool.failed">;
type SessionMetadata = Metadata<
  "session.created" | "session.updated" | "session.deleted" | "session.activity"
>;
type StoredMessage = Metadata<"message.created" | "message.updated">;
type QueueEntry = import("protocol").QueueEntry;
type QueueMetadata = import("protocol").QueueMetadata;
type ModelStatus = import("protocol").ModelStatus;
type Usage = import("protocol").Usage;

type TextOrThoughts = import("protocol").TextPart;
type ToolPart = import("protocol").ToolPart;
type AgentPart = import("protocol").AgentPart;
type Approval = import("protocol").ApprovalPart;
type Part = TextOrThoughts | ToolPart | AgentPart | Approval;
type Answer = import("protocol").RespondMetadata;

/** The place of a frame in the journal of its run. */
type At = import("protocol").SequencedMetadata;
/** The run that is shown, and the place up to which it is shown. */
type Run = At;

/** A message as the page shows it, stored or unsent. */
interface Message {
  message_id: string;
  role?: "user" | "assistant";
  number?: number;
  parent_message_id?: string | null;
  client_message_id?: string;
  parts?: Part[];
  created_at?: string;
  run_id?: string;
  run_status?: string;
  agent?: string;
  reason?: string;
  error_code?: string;
  error_text?: string;
  usage?: Usage;
  html?: string;
  summary?: string;
  /** The state beside the status of its run: sending, refused, retrying, restarting. */
  state?: string;
  wait_s?: number;
  /** Why the message was refused. */
  note?: string;
  /** Rises with each change; absent in a message that is shown as the server has rendered it. */
  version?: number;
  /** Rises when the parts are replaced by others that do not continue them. */
  generation?: number;
}

/** The ids of messages by parent, for parents with several children. */
type Siblings = Record<string, string[]>;

/** What the caller of `Conversation.apply` must do. */
type Effect =
  | { kind: "resume" | "reload" | "retry" | "missing" }
  | { kind: "notice"; text: string }
  | { kind: "accepted"; client_message_id: string; session_id: string }
  | { kind: "cancel"; session_id: string; run_id: string }
  | { kind: "refused"; client_message_id: string; text: string }
  | { kind: "postponed"; client_message_id: string; retry_after: number }
  | { kind: "started" | "ended"; message: Message }
  | { kind: "tool"; event: "tool.started" | "tool.failed"; name: string }
  | { kind: "asked"; message: Message; request_id: string }
  | { kind: "answered"; request_id: string; duplicate: boolean };

/** Options of sending a message. */
interface SendOptions {
  on_busy?: "interrupt";
  parent_message_id?: string;
  regenerate?: string;
  /** The message that this one replaces: what is taken back is an edit of that again. */
  revises?: string;
}

/** A message in the outbox: kept in the browser until the server has stored it. */
interface OutboxEntry extends SendOptions {
  client_message_id: string;
  session_id?: string;
  begins?: string;
  content: string;
  agent?: string;
  refused?: string | null;
  isTried?: boolean;
  at?: number;
}

/** The data that a rendered page's code starts from: `chat-data`. */
interface PageData {
  session_id: string;
  rev: number;
  run: Run | null;
  parts: Part[];
  queue: QueueEntry[];
  messages: Message[];
  siblings: Siblings;
  branch: string;
  user: string;
  username: string;
  enter: "" | "send" | "newline";
  push: boolean;
  archived: boolean;
  pinned: boolean;
  /** The name of the site. */
  site: string;
  agent: { name: string; label: string };
  feedback: Record<string, "up" | "down">;
  frame_max_bytes: number;
  csrf_cookie: string;
  notable_ms: number;
  scripted_agent: string;
  model: ModelStatus | null;
  urls: Record<
    "socket" | "session" | "sessions" | "export" | "guest" | "model" | "shared" | "worker",
    string
  >;
}

/** A page that was loaded in the background. */
interface LoadedPage {
  data: PageData;
  messages: HTMLElement[];
  page: Document;
}

/** The fields of a session in the list, from a frame or the API. */
interface SessionInfo {
  title: string;
  active_at: string;
  run_status?: string | null;
  archived?: boolean | string | null;
  pinned?: boolean;
  match?: SearchMatch | null;
}
interface SearchMatch {
  message_id: string;
  excerpt: { text: string; found: boolean }[];
}
/** A session in an answer of the API. */
interface SessionRow extends SessionInfo {
  id: string;
  archived_at: string | null;
}
/** A session that an action was chosen for. */
interface ChosenSession {
  id: string;
  title: string;
  archived: boolean;
  pinned: boolean;
  onLeave?: () => void;
}
type Verdict = "up" | "down";

// biome-ignore lint/suspicious/noExplicitAny: nested texts of agentsite/web/view_models.py
type Words = Record<string, any>;
type Announce = (text: string) => void;
type Token = import("markdown-it").Token;

type Branch = import("../../static/chat/conversation/branch.js").Branch;
type Conversation = import("../../static/chat/conversation/conversation.js").Conversation;
type StoredMessages = import("../../static/chat/conversation/stored_messages.js").StoredMessages;
type Connection = import("../../static/chat/sending/connection.js").Connection;
type Outbox = import("../../static/chat/sending/outbox.js").Outbox;
type Sender = import("../../static/chat/sending/sender.js").Sender;
type Composer = import("../../static/chat/sending/composer.js").Composer;
type Draft = import("../../static/chat/sending/draft.js").Draft;
type Queue = import("../../static/chat/sending/queue.js").Queue;
type KeptTexts = import("../../static/chat/page/kept.js").KeptTexts;
type AgentPicker = import("../../static/chat/sending/agent_picker.js").AgentPicker;
type Approvals = import("../../static/chat/log/approval.js").Approvals;
type Transcript = import("../../static/chat/log/transcript.js").Transcript;
type PageHistory = import("../../static/chat/log/history.js").PageHistory;
type MoreMessages = import("../../static/chat/log/history.js").MoreMessages;
type ReadingPlace = import("../../static/chat/log/reading_place.js").ReadingPlace;
type SessionManager = import("../../static/chat/sessions/manager.js").SessionManager;
type SessionList = import("../../static/chat/sessions/list.js").SessionList;
type ShareDialog = import("../../static/chat/sessions/share.js").ShareDialog;
type Toast = import("../../static/chat/page/toast.js").Toast;
type PageTitle = import("../../static/chat/page/page_title.js").PageTitle;
type ChatScreen = import("../../static/chat/page/chat_screen.js").ChatScreen;

/** What was typed and is to be sent; `edited` is the message that it replaces. */
interface Typed {
  text: string;
  isUrgent: boolean;
  edited: Message | null;
}
/** The text that an edited message has become so far. */
interface Revision {
  message_id: string;
  text: string;
}
/** What is typed where, and with what ids: sessions, queued runs, requests, messages. */
type Kind = "draft" | "edit" | "queue" | "queued" | "reason" | "comment";
/** A change of a session. */
interface SessionEvent extends SessionInfo {
  event: SessionMetadata["event"];
}
interface Share {
  id: string;
  created_at: string;
}

interface PageHistoryEvents {
  replace: null;
  append: boolean;
  remain: null;
}
interface QueueEvents {
  change: { content: string; metadata: QueueMetadata };
  unsaved: string;
}
/** A class whose instances dispatch these events, each with its detail. */
type Emitter<E> = new () => Omit<EventTarget, "addEventListener"> & {
  addEventListener<K extends keyof E>(type: K, listener: (event: CustomEvent<E[K]>) => void): void;
};

// Markdown

/** Definitions in a text that the texts after it use. */
interface Known {
  references?: Record<string, unknown>;
  headings?: number[];
  footnotes?: unknown;
}
type MarkdownIt = typeof import("markdown-it").default;
type MarkdownEnv = import("markdown-it").Env;
type Parser = import("markdown-it").MarkdownIt;
type CoreState = import("markdown-it").StateCore;
type BlockState = import("markdown-it").StateBlock;
type InlineState = import("markdown-it").StateInline;
type InlineRule = (state: InlineState, silent: boolean) => boolean;
type BlockRule = (state: BlockState, start: number, end: number, silent: boolean) => boolean;
/** An outermost block: its tokens, and the line at which it begins. */
interface Block {
  start: number;
  tokens: Token[];
}
/** The part of Temml that is used. */
interface Typesetter {
  renderToString(tex: string, options: object): string;
}
/** The part of highlight.js that is used. */
interface Highlighter {
  registerLanguage(name: string, grammar: unknown): void;
  highlight(text: string, options: { language: string }): { value: string };
}

type Tags = HTMLElementTagNameMap;
/** The type of element that a selector finds, by the tag name at its beginning. */
type ElementOf<S> = S extends keyof Tags
  ? Tags[S]
  : S extends `${infer T}.${string}`
    ? TagOf<T>
    : S extends `${infer T}[${string}`
      ? TagOf<T>
      : HTMLElement;
type TagOf<T> = T extends `${infer U}[${string}`
  ? TagOf<U>
  : T extends keyof Tags
    ? Tags[T]
    : HTMLElement;
