// The widget as a React component.

import { ChatCustomElement } from "@carbon/ai-chat";
import { createRoot } from "react-dom/client";
import { onAfterRender, options } from "./options.js";

createRoot(document.querySelector("main")!).render(
  <ChatCustomElement className="chat" {...options} onAfterRender={onAfterRender} />,
);
