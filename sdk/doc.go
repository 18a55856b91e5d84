// Package sdk is what a desk vendor imports to write a deskhost plugin: a
// program that connects deskhost to a contact-centre desk.
//
// A plugin implements [Desk], and whichever of the optional interfaces its
// vendor's API can serve ([AvailabilityReporter], [StateUpdater],
// [TypingReceiver], [ReadReceiver], [Resumer], [HTTPHandler], [Configurer],
// [HealthChecker], [Drainer]); which ones it has is found by type assertion.
// It tells the host what happens at the desk with [Host.Emit], and says why a
// call failed with a [Failure]. [Serve] does the rest: the transport, the event
// stream with its acknowledgements, the end of the process when the host goes.
//
// The package owns the plugin's side of the wire and nothing of any vendor. It
// knows nothing of the host's code, and no protobuf type is visible in it.
package sdk
