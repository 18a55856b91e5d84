package desktest

// firstCheck is the one without which no other can tell anything.
const firstCheck = "start/handshake"

// checks are all rules, in the order in which a vendor meets them.
func checks() []*check {
	return []*check{
		{firstCheck, "the program's first line on standard output is go-plugin's handshake: core version 1, desk protocol 1, grpc, a certificate", "starting", checkHandshake},
		{"start/mutual_tls", "who has no certificate of the host gets no answer", "starting", checkMutualTLS},
		{"describe/name", "the name is that of the file behind deskhost-plugin-", "describe", checkName},
		{"describe/version", "the version is semantic, like 1.2.3", "describe", checkVersion},
		{"describe/values", "capabilities, send_dedupe, replay and state formats are known ones, each named once", "describe", checkValues},
		{"describe/repeated", "Describe answers the same each time, also after Configure", "describe", checkDescribeAgain},
		{"configure/schema", "config_schema is empty or a JSON Schema (2020-12) that holds all it refers to, and the configuration fits it", "configure", checkSchema},
		{"configure/good", "a configuration that fits is taken", "configure", checkConfigure},
		{"configure/bad", "a configuration that cannot work is refused, by the schema or with INVALID", "configure", checkBadConfig},
		{"health/ready", "Health says healthy once the plugin is configured, and more than once", "health", checkHealth},

		{"chat/start", "StartChat answers OK once the desk has taken the chat", "chats", checkStart},
		{"chat/start_again", "StartChat for a chat that is open, or is being opened, joins it", "chats", checkStartAgain},
		{"chat/end", "EndChat ends the chat; again it is OK, CHAT_OVER or CHAT_UNKNOWN", "chats", checkEnd},
		{"chat/end_unknown", "EndChat of a chat that no process knows settles it: OK, CHAT_OVER or CHAT_UNKNOWN", "chats", checkEndUnknown},
		{"chat/many", "many chats at once each get what is theirs", "chats", checkMany},
		{"message/send", "SendMessageToAgent answers OK once the desk has the message, and an agent sees it as it was written", "messages", checkSend},
		{"message/send_dedupe", "as send_dedupe declares, a message that is sent again shows once, also after a crash", "send_dedupe", checkDedupe},
		{"message/limits", "a text and an id of the largest size are taken, or refused with INVALID or REFUSED", "limits", checkLargeMessage},

		{"optional/declared", "each declared capability's call is served", "optional-calls", checkDeclared},
		{"optional/undeclared", "each undeclared one answers UNIMPLEMENTED, or a Failure of the kind UNSUPPORTED", "optional-calls", checkUndeclared},
		{"optional/http", "HandleHTTP answers any request with a status of 200 to 599 and at most 1 MiB", "http", checkHTTP},

		{"failure/detail", "a call that fails says by a Failure what became of it", "failures", checkFailureDetail},
		{"failure/retry", "what the desk had no part in is RETRY, and works when it is tried again", "failures", checkRetry},
		{"failure/cut", "a call that is cut off harms no other, and may be made again", "deadlines", checkCut},
		{"failure/cancelled", "after a call that is given up in the middle the chat's next calls work", "deadlines", checkCancelled},
		{"failure/stalled", "while the desk stalls one call, Health and other chats go on", "deadlines", checkStalled},

		{"events/rules", "events are numbered 1, 2, 3 …, within their limits, and well-formed", "events", checkEventRules},
		{"events/order", "what an agent says arrives in order and once", "events", checkOrder},
		{"events/ended", "the desk's own end of a chat comes as AgentEndedChat, behind all else", "events", checkEnded},
		{"events/resent", "an event that is acknowledged is not sent again", "acknowledgement", checkResent},
		{"events/window", "no more events wait for their acknowledgement than the window allows, and none is lost by waiting", "back-pressure", checkWindow},
		{"events/chat_window", "no chat has more than its part of the window, and others go on beside it", "back-pressure", checkChatWindow},
		{"events/late_ack", "an event that waits for its acknowledgement is not sent again, and no call fails of it", "acknowledgement", checkLateAck},
		{"events/low_limits", "limits that the host opens the stream with are kept, and what is over them costs that event only", "back-pressure", checkLowLimits},
		{"events/refused", "a refused event is done with: the process lives, and other chats go on", "refusals", checkRefused},

		{"resume/again", "ResumeChat is idempotent", "resume", checkResumeAgain},
		{"resume/unknown", "ResumeChat of a conversation that the desk does not know fails with CHAT_UNKNOWN or CHAT_OVER", "resume", checkResumeUnknown},
		{"resume/replay", "as replay declares, what was said while nobody listened arrives after ResumeChat, once", "replay", checkReplay},
		{"quiesce/flush", "QuiesceChat returns once every event that was sent is acknowledged", "quiesce", checkQuiesceFlush},
		{"quiesce/silence", "after QuiesceChat no event of the chat comes, and another process goes on where it ended", "quiesce", checkQuiesceSilence},
		{"quiesce/unknown", "QuiesceChat of a chat that the process does not serve fails with CHAT_UNKNOWN or CHAT_OVER", "quiesce", checkQuiesceUnknown},

		{"fault/paused", "a process that is stopped for a while loses and doubles nothing", "faults", checkPaused},
		{"fault/killed_starting", "a chat whose start the process did not survive is started again, and is one", "faults", checkKilledStarting},
		{"fault/killed_sending", "as send_dedupe declares, a message whose sending the process did not survive shows once when it is sent again", "faults", checkKilledSending},
		{"fault/killed_talking", "with replay: cursor, a chat whose process dies while the agent talks is told all of it, once and in order", "faults", checkKilledTalking},

		{"end/drain", "Drain returns once every event that was sent is acknowledged, within its deadline", "ending", checkDrain},
		{"end/stdin", "the process ends when its standard input does", "ending", checkStdin},
		{"end/children", "what the process has started ends with it", "ending", checkChildren},
		{"end/sigterm", "SIGTERM ends the process", "ending", checkSigterm},
		{"end/sigint", "SIGINT is the host's business: the process lives", "ending", checkSigint},
		{"log/privacy", "what users and agents write is not logged above debug", "logs", checkPrivacy},
	}
}
