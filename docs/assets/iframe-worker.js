// The search runs in a worker, which browsers refuse on a page that is opened from the disk (file://). There a hidden
// frame takes the worker's place. Zensical would load such a script from a network if it found none of this name.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.listen = ({ source, data }) => {
        if (source !== this.frame.contentWindow) return;
        const message = new MessageEvent("message", { data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      };
      addEventListener("message", this.listen);
      const page = this.frame.contentDocument;
      page.open();
      page.write(`<body><script>self.postMessage = (data) => parent.postMessage(data, "*")</` + `script>`);
      page.write(`<script src="${url}"></` + `script>`);
      page.close();
      this.ready = new Promise((resolve) => this.frame.contentWindow.addEventListener("load", resolve));
    }

    postMessage(data) {
      const message = new MessageEvent("message", { data: structuredClone(data) });
      this.ready.then(() => this.frame.contentWindow?.dispatchEvent(message));
    }

    terminate() {
      removeEventListener("message", this.listen);
      this.frame.remove();
    }
  };
}
