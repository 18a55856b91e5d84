// The service-desk contract of IBM's hosted watsonx Assistant web chat, written down from its starter
// kit of 2023, as the widget publishes no types of its own.

export interface AgentProfile {
  id: string;
  nickname: string;
  profile_picture_url?: string;
}

export interface AgentAvailability {
  position_in_queue?: number;
  estimated_wait_time?: number;
  message?: string;
}

export type ErrorInfo =
  | { type: 1; messageToUser?: string; logInfo?: unknown }
  | { type: 2; isDisconnected: boolean; logInfo?: unknown };

export interface MessageResponse {
  id?: string;
  output: { generic?: { response_type: string }[] };
}

export interface MessageRequest {
  input: { text?: string; message_type?: string };
}

export interface FileUpload {
  id: string;
  file: File;
  isError?: boolean;
  errorMessage?: string;
}

export interface ServiceDeskCallback {
  updateCapabilities(capabilities: {
    allowFileUploads?: boolean;
    allowMultipleFileUploads?: boolean;
    allowedFileUploadTypes?: string;
  }): void;
  updateAgentAvailability(availability: AgentAvailability): Promise<void>;
  agentJoined(profile: AgentProfile): Promise<void>;
  agentReadMessages(): Promise<void>;
  agentTyping(isTyping: boolean): Promise<void>;
  sendMessageToUser(message: MessageResponse | string, agentID?: string): Promise<void>;
  beginTransferToAnotherAgent(profile?: AgentProfile): Promise<void>;
  agentLeftChat(): Promise<void>;
  agentEndedChat(): Promise<void>;
  setErrorStatus(error: ErrorInfo): Promise<void>;
  setFileUploadStatus(fileID: string, isError?: boolean, errorMessage?: string): Promise<void>;
  screenShareRequest(): Promise<"accepted" | "declined" | "cancelled" | "ended">;
  screenShareEnded(): Promise<void>;
}

export interface ServiceDesk {
  getName(): string;
  startChat(connectMessage: MessageResponse, options?: { preStartChatPayload?: unknown }): Promise<void>;
  endChat(info: { preEndChatPayload?: unknown }): Promise<void>;
  sendMessageToAgent(
    message: MessageRequest,
    messageID: string,
    additionalData: { filesToUpload?: FileUpload[] },
  ): Promise<void>;
  updateState?(state: { sessionID?: string; userID?: string; locale?: string }): void;
  userTyping?(isTyping: boolean): Promise<void>;
  userReadMessages?(): Promise<void>;
  areAnyAgentsOnline?(connectMessage: MessageResponse): Promise<boolean | null>;
  filesSelectedForUpload?(uploads: FileUpload[]): void;
  screenShareStop?(): Promise<void>;
}

export type ServiceDeskFactory = (parameters: { callback: ServiceDeskCallback; instance: object }) => ServiceDesk;
