// Every word of the pages, in English and Simplified Chinese; `{}` takes a value.
const WORDS = {
  skip: ["Skip to content", "跳到内容"], pages: ["Pages", "页面"],
  live: ["Live", "实时"], try: ["Try it", "试一试"], user: ["User", "用户"], releases: ["Releases", "版本"], data: ["Data", "数据"],
  light: ["Light", "浅色"], dark: ["Dark", "深色"], language: ["中文", "English"],
  token: ["Access token", "访问令牌"], tokenWhy: ["This server asks for the token that it was started with. It is kept for this tab only.", "此服务器要求启动时设置的令牌，仅保存在当前标签页。"],
  go: ["Go", "确定"], cancel: ["Cancel", "取消"], lost: ["Connection lost, trying again…", "连接中断，正在重试…"], none: ["none", "无"], loading: ["Loading…", "加载中…"],

  liveAbout: ["What flows through this deployment, second by second.", "每秒更新的系统运行状况。"],
  eventsIn: ["events in per second", "每秒流入事件"], lag: ["events not yet applied", "尚未处理的事件"],
  latency: ["ms from event to recommendation, median", "毫秒，从事件到推荐（中位数）"],
  serving: ["serving release", "当前服务版本"], liveNdcg: ["live NDCG@10, last minute", "最近一分钟在线 NDCG@10"],
  flow: ["Events and recommendations per second", "每秒事件与推荐数"], produced: ["produced", "写入"], applied: ["applied", "已处理"], recommended: ["recommended", "已推荐"],
  lagTitle: ["Events not yet applied", "尚未处理的事件"], latencyTitle: ["Event to recommendation, milliseconds", "从事件到推荐的延迟（毫秒）"], median: ["median", "中位数"], p99: ["99th percentile", "第 99 百分位"],
  qualityTitle: ["Quality, each event ranked before it was applied", "质量：每个事件在处理前先被排名"], qualityNote: ["NDCG@10 of the last minute, by release", "最近一分钟各版本的 NDCG@10"],
  noData: ["Nothing yet.", "暂无数据。"],

  tryAbout: ["Act as a user and watch the recommendations follow.", "以用户身份操作，观察推荐如何变化。"],
  who: ["User", "用户"], newUser: ["New user", "新用户"], use: ["Use this user", "使用此用户"], recent: ["Changed last:", "最近活跃："],
  interests: ["Interests in words (optional)", "用文字描述兴趣（可选）"], interestsHint: ["space opera, slow crime dramas", "太空歌剧、慢节奏犯罪片"],
  declare: ["Declare", "提交"], declared: ["Declared; recommendations follow.", "已提交，推荐随后更新。"],
  ofItems: ["{} items", "共 {} 项"], search: ["Search the catalogue", "搜索目录"], catalogue: ["Catalogue", "目录"], recommendedNow: ["Recommended now", "当前推荐"],
  sent: ["{} sent", "已发送 {}"], took: ["new recommendations {} ms after the click", "点击后 {} 毫秒收到新推荐"],
  isNew: ["new", "新"], because: ["because of", "因为"], alsoTag: ["both {}", "同属 {}"], popular: ["well liked by many", "广受欢迎"], trending: ["many turn to it lately", "近期热门"], byInterests: ["your declared interests", "您声明的兴趣"],
  causeEvent: ["after an event", "由事件触发"], causeRequest: ["on request", "应请求生成"], by: ["by {}", "版本 {}"], chooseUser: ["Choose a user first.", "请先选择用户。"],
  profileNow: ["Profile now", "当前画像"], noProfile: ["Nothing is known of this user yet.", "尚无此用户的信息。"], wholeProfile: ["The whole profile", "完整画像"],
  more: ["More actions", "更多操作"], noAnswer: ["No recommendations yet: {}", "暂无推荐：{}"],

  userAbout: ["What is known of one user.", "系统对某位用户的了解。"], look: ["Look", "查看"], history: ["Remembered events, newest first", "记住的事件（最新在前）"],
  interestMap: ["Interest map", "兴趣图谱"], mapNote: ["Items that lie close are alike to the serving release; the plane shows {}% of their differences.", "位置相近的物品在当前版本看来相似；平面展示了其差异的 {}%。"],
  mapLeftOut: ["{} without a vector are left out.", "{} 项没有向量，未显示。"], mapHint: ["Point at an item, or use the arrow keys.", "指向某个物品，或使用方向键。"], mapLabel: ["Map of items, {} of them the user's own or recommended", "物品图谱，其中 {} 项为该用户的历史或推荐"],
  recommendedKind: ["recommended", "推荐"], nearKind: ["near in the catalogue", "目录中相近"], tagsTitle: ["Tags of remembered events", "已记住事件的标签"],
  sessionsTitle: ["Last session against long-term", "最近会话与长期兴趣"], sessionsCount: ["{} events in the last session, {} remembered from before.", "最近会话 {} 个事件，此前记住 {} 个。"],
  sessionsWeight: ["The session makes {}% of what both add to these scores.", "这些得分的增减中，会话占 {}%。"],
  swapTitle: ["What the last swap changed", "最近一次版本切换的变化"], swapNote: ["The same remembered events, read by the release that served before and by the one that serves since {}: {} of {} items stayed.", "同样的已记住事件，分别由之前的版本与自 {} 起服务的版本解读：{}/{} 项保持不变。"],
  swapNone: ["Only one release has served so far.", "目前只有一个版本曾提供服务。"], swapBefore: ["Before", "切换前"], swapAfter: ["Now", "当前"], isGone: ["gone", "移出"], noInsight: ["Map and sessions are missing: {}", "图谱与会话不可用：{}"],
  session: ["last session", "最近会话"], longTerm: ["before", "此前"],
  knownEvents: ["events ever", "累计事件"], lastSeen: ["last event", "最近事件"], space: ["profile in the space of", "画像所属版本"], declaredInterests: ["declared interests", "声明的兴趣"],
  erase: ["Forget this user", "删除此用户"], eraseAsk: ["Profile, changelog, recommendations and replay buffer forget {}. This cannot be undone.", "将从画像、变更日志、推荐与回放缓冲中删除 {}，无法撤销。"], erased: ["Asked to forget; receipts follow.", "已请求删除，稍后可见回执。"],
  tryAs: ["Try it as this user", "以此用户试用"],

  releasesAbout: ["What was learned, how it was judged, what serves.", "学到了什么、如何评判、当前服务哪个版本。"],
  servedBefore: ["served before", "曾提供服务"], parent: ["parent", "父版本"], decided: ["decided", "决定时间"], reason: ["reason", "原因"], metrics: ["Figures", "指标"], promote: ["Promote", "提升"], rollback: ["Roll back", "回滚"],
  promoteAsk: ["{} will serve all users at once, without shadow or canary. Profiles are rebuilt in its space.", "{} 将立即服务所有用户，跳过影子与金丝雀阶段；画像会在其空间中重建。"],
  forceAsk: ["It was {}. Promote it all the same?", "该版本曾被标记为 {}，仍要提升吗？"],
  rollbackAsk: ["The release that served before {} serves again, and {} counts as rolled back.", "{} 之前的版本将重新服务，{} 将标记为已回滚。"],
  timeline: ["Timeline, newest decision first", "时间线（最新决定在前）"], release: ["release", "版本"], period: ["period {}", "第 {} 期"],
  forgettingTitle: ["Forgetting: how well each release does on the exam of each period", "遗忘：各版本在各期考试中的表现"],
  forgettingNote: ["NDCG@10 of held-out events. Down a column: whether later releases still know what an earlier one knew. Outlined: the release on its own period.", "留出事件的 NDCG@10。沿列向下看：后来的版本是否仍掌握先前的知识。带框者为该版本自己的时期。"],
  forgettingNone: ["The serving release has sat no exam yet: it was made from texts alone.", "当前版本尚未参加考试：它仅由文本生成。"],
  freeze: ["Freeze promotions", "冻结提升"], unfreeze: ["Unfreeze", "解除冻结"], whyField: ["Reason, kept in the audit log", "原因（记入审计日志）"], noReason: ["no reason given", "未说明原因"],
  freezeAsk: ["No release will be promoted until you unfreeze; a rollback still can be done.", "解除之前不会提升任何版本；仍可回滚。"], unfreezeAsk: ["Promotions go on.", "将恢复提升。"],
  frozen: ["Promotions are frozen since {}: {}", "自 {} 起已冻结提升：{}"], isFrozen: ["Promotions are frozen.", "已冻结提升。"], isUnfrozen: ["Promotions go on.", "已恢复提升。"],
  exam: ["exam", "考试"], ofParent: ["in service then", "当时版本"], ofCandidate: ["this release", "本版本"], changeHead: ["change", "变化"], errorHead: ["standard error", "标准误"], eventsHead: ["events", "事件"],
  exam_recent: ["gate: newest events", "准入：最新事件"], exam_long_ago: ["gate: long ago", "准入：早期事件"], exam_shadow_paired: ["shadow", "影子"], exam_canary_paired: ["canary", "金丝雀"],
  done: ["Done: {} serves.", "完成：{} 正在服务。"], share: ["{} of the users", "{} 的用户"],

  dataAbout: ["What workers could not use, and why.", "工作进程无法使用的消息及原因。"], reasons: ["Reasons", "原因"], newest: ["Newest dead letters", "最新死信"],
  topic: ["topic", "主题"], when: ["when", "时间"], payload: ["payload", "内容"], noLetters: ["No dead letters: everything could be used.", "没有死信：所有消息都可用。"], refresh: ["Refresh", "刷新"], place: ["partition and offset", "分区与偏移量"],
  replay: ["Send back", "重新发送"], replayMany: ["Send {} back", "重新发送 {} 条"], replayAsk: ["{} will go back to the topic, partition and key they came from, byte for byte. What is still wrong becomes a new dead letter. The audit log notes it.", "{} 条消息将原样送回其来源主题、分区与键。仍有问题者会成为新的死信。审计日志会记录此操作。"],
  replayed: ["{} of {} sent back.", "已重新发送 {}/{} 条。"], replayNote: ["First put right what they were refused for; a letter that was sent back stays in the list.", "请先排除被拒原因；已重新发送的死信仍保留在列表中。"],
  choose: ["Choose this letter: {}", "选择此死信：{}"], chooseAll: ["all", "全选"], chooseReason: ["Choose all with this reason", "选择所有此类原因"], key: ["key", "键"], bytes: ["{} bytes", "{} 字节"],
};

let at = 0;
export function setLanguage(code) {
  at = code === "zh" ? 1 : 0;
  document.documentElement.lang = at ? "zh-Hans" : "en";
}
export const language = () => (at ? "zh" : "en");

export function t(key, ...values) {
  const text = WORDS[key] ? WORDS[key][at] : key;
  return text.replaceAll("{}", () => String(values.length > 1 ? values.shift() : values[0]));
}
