"""Every reply that the session machine gives by itself (RFC 5321 section 4.2, enhanced codes of RFC 2034 and RFC 3463).

Replies about mail (relaying denied, mailbox unknown, queue full) are the driver's. None of these repeats what the peer sent.
"""

from relay.mail.reply import Reply

# Success.
BYE = Reply(221, "2.0.0", "closing connection")
OK = Reply(250, "2.0.0", "ok")
SENDER_OK = Reply(250, "2.1.0", "sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "recipient ok")
VRFY = Reply(252, "2.0.0", "cannot verify, but will take mail for it and try")
HELP = Reply(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS AUTH QUIT: see RFC 5321")
TLS_READY = Reply(220, "2.0.0", "ready to start TLS")
LOGGED_IN = Reply(235, "2.7.0", "authenticated")
SEND_DATA = Reply(354, "", "end data with <CR><LF>.<CR><LF>")

# We end the connection.
TOO_MANY_ERRORS = Reply(421, "4.7.0", "too many errors")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "too many commands without a message")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "too many failed logins")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "too many messages in one connection: open another")
NOT_SMTP = Reply(421, "4.7.0", "this is SMTP")
BEHIND_STARTTLS = Reply(554, "5.5.1", "nothing may follow STARTTLS before the handshake (RFC 3207)")

# The line is not a command.
BARE_LF = Reply(500, "5.5.2", "lines end with CRLF, not with a bare LF")
LONG_LINE = Reply(500, "5.5.2", "line too long")
CONTROL = Reply(500, "5.5.2", "control characters in a command")
NOT_UTF8 = Reply(501, "5.5.2", "the command is not valid UTF-8")
UNKNOWN = Reply(500, "5.5.1", "unknown command")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "command not implemented")
NO_ARGUMENTS = Reply(501, "5.5.4", "the command takes no argument")
ARGUMENT_MISSING = Reply(501, "5.5.4", "the command needs an argument")

# Not now.
REFUSED = Reply(503, "5.5.1", "this session was refused: QUIT")
HELLO_FIRST = Reply(503, "5.5.1", "EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "MAIL first")
NESTED = Reply(503, "5.5.1", "a transaction is open: RSET, or finish it")
MIXED = Reply(503, "5.5.1", "BDAT has begun this message: no DATA, no RCPT (RFC 3030)")
NO_RECIPIENTS = Reply(554, "5.5.1", "no valid recipients")
TLS_FIRST = Reply(530, "5.7.0", "STARTTLS first")
TLS_ACTIVE = Reply(503, "5.5.1", "TLS is active already")
AUTH_FIRST = Reply(530, "5.7.0", "authentication required")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "STARTTLS first: passwords do not travel in clear")
AUTH_DONE = Reply(503, "5.5.1", "authenticated already")

# AUTH.
AUTH_CANCELLED = Reply(501, "5.7.0", "authentication cancelled")
AUTH_SYNTAX = Reply(501, "5.5.2", "the response is not valid base64 of what the mechanism asks for")
AUTH_LONG_LINE = Reply(500, "5.5.6", "authentication line too long")
AUTH_MECHANISM = Reply(504, "5.5.4", "mechanism not offered: PLAIN or LOGIN")
AUTH_OTHER_IDENTITY = Reply(535, "5.7.8", "logging in as one user to act as another is not possible here")

# MAIL, RCPT, BDAT and HELO arguments.
HELLO_ARGUMENT = Reply(501, "5.5.4", "give your host name or address literal")
MAIL_SYNTAX = Reply(501, "5.5.4", "write MAIL FROM:<address>")
RCPT_SYNTAX = Reply(501, "5.5.4", "write RCPT TO:<address>")
BDAT_SYNTAX = Reply(501, "5.5.4", "write BDAT size, or BDAT size LAST")
REQUIRETLS_IN_CLEAR = Reply(530, "5.7.10", "REQUIRETLS is for connections with TLS (RFC 8689)")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "a non-ASCII address needs SMTPUTF8 in MAIL (RFC 6531)")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "too many recipients: send the rest in another transaction")

# The message itself.
BAD_LINE_ENDS = Reply(550, "5.6.11", "bare CR, bare LF or NUL in the message")
TOO_LARGE = Reply(552, "5.3.4", "the message is larger than this server takes")
LONG_CONTENT_LINE = Reply(550, "5.6.0", "a line of the message is too long")
