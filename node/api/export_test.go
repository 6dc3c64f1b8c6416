package api

// Patterns are the routes that the server has, but for the page's.
func (s *Server) Patterns() []string { return s.patterns }
