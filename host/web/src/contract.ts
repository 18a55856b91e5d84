// The service-desk contract of IBM's chat widgets, as far as the module uses it: the hosted web chat
// and its successor @carbon/ai-chat. Where their names differ, both are given.

/** An agent, as a widget shows one. */
export interface WidgetProfile {
  id: string;
  nickname: string;
  /** "human" or "bot". */
  user_type: string;
  profile_picture_url?: string;
}

/** News for a waiting user, in the spelling of both generations. The wait is in minutes. */
export interface WidgetAvailability {
  positionInQueue?: number;
  position_in_queue?: number;
  estimatedWaitTime?: number;
  estimated_wait_time?: number;
  message?: string;
}

/** CONNECTING is 1, DISCONNECTED 2, USER_MESSAGE 3; the hosted web chat does not know the last one. */
export interface WidgetError {
  type: number;
  messageToUser?: string;
  isDisconnected?: boolean;
  messageID?: string;
  logInfo?: unknown;
}

/** What a desk tells its widget. The last two are there in @carbon/ai-chat only. */
export interface WidgetCallback {
  updateAgentAvailability(availability: WidgetAvailability): Promise<void>;
  agentJoined(profile: WidgetProfile): Promise<void>;
  agentReadMessages(): Promise<void>;
  agentTyping(isTyping: boolean): Promise<void>;
  sendMessageToUser(message: object | string, agentID?: string): Promise<void>;
  beginTransferToAnotherAgent(profile?: WidgetProfile): Promise<void>;
  agentLeftChat(): Promise<void>;
  agentEndedChat(): Promise<void>;
  setErrorStatus(error: WidgetError): Promise<void>;
  setFileUploadStatus(fileID: string, isError?: boolean, errorMessage?: string): Promise<void>;
  persistedState?(): unknown;
  updatePersistedState?(state: unknown, mergeWithCurrent?: boolean): void;
}

/** The assistant's answer that holds a `connect_to_agent` item. */
export interface ConnectMessage {
  output: { generic?: readonly object[] };
}

/** A message of the user. The hosted web chat gives its id beside it only. */
export interface WidgetMessage {
  id?: string;
  input: object;
}

export interface WidgetUpload {
  id: string;
}

/** What the hosted web chat passes to a factory. */
export interface WebChatParameters {
  callback: WidgetCallback;
  instance: object;
}

/** What @carbon/ai-chat passes to a factory. */
export interface CarbonParameters extends WebChatParameters {
  persistedState: unknown;
}

/** The desk that the factory makes: all that a widget of either generation calls. */
export interface WidgetDesk {
  getName: () => string;
  areAnyAgentsOnline: (connectMessage: ConnectMessage) => Promise<boolean | null>;
  startChat: (connectMessage: ConnectMessage, options?: { preStartChatPayload?: unknown }) => Promise<void>;
  endChat: (info?: object) => Promise<void>;
  sendMessageToAgent: (
    message: WidgetMessage,
    messageID: string,
    additionalData?: { filesToUpload?: readonly WidgetUpload[] },
  ) => Promise<void>;
  userTyping: (isTyping: boolean) => Promise<void>;
  userReadMessages: () => Promise<void>;
  updateState: (state: { sessionID?: string; userID?: string; locale?: string }) => Promise<void>;
  filesSelectedForUpload: (uploads: readonly WidgetUpload[]) => void;
  screenShareStop: () => Promise<void>;
  reconnect: () => Promise<boolean>;
}

/** What both generations take as `serviceDeskFactory`. Keep one for the life of the page. */
export interface ServiceDeskFactory {
  (parameters: CarbonParameters): Promise<WidgetDesk>;
  (parameters: WebChatParameters): WidgetDesk;
}
