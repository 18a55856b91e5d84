// The widget as a web component.

import "@carbon/ai-chat/dist/es/web-components/cds-aichat-custom-element/index.js";
import { onAfterRender, options } from "./options.js";

const element = document.createElement("cds-aichat-custom-element");
Object.assign(element, { ...options, onAfterRender });
document.querySelector("main")!.append(element);
