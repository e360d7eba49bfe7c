"""Opinion monitoring: what news and posts say of each entity, and when it turns bad.

`classes` makes sentiment and topic of a text's vector, `windows` counts them per entity, `surge`
says when a count is a surge and when it is over, `book` is the three together.  All of that is
arithmetic on values; `service` has the clock, Kafka and the language model.
"""
