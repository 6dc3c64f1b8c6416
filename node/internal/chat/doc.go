// Package chat renders conversations by the chat templates that come with
// language models: the part of Jinja that published templates use, and of each
// byte of the result who wrote it.
//
// Templates and messages come from strangers. Rendering reads no file, knows
// no clock and no network, and is bounded in work, memory and depth. What a
// template does that is not known here is an error, never left out.
package chat
